"""From what a handler raises to the google.rpc.Status that its client sees."""

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from infosink.v1.model_pb2 import Model

from ..errors import (
    BusyError,
    DeadlineError,
    DrainingError,
    InvalidRequestError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
    UnknownModelError,
    Violation,
)
from . import call_record

DOMAIN = "infosink"
"""The ErrorInfo's, within which a reason has one meaning."""
INTERNAL_REASON = "INTERNAL"
DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries a google.rpc.Status."""

_CODES: dict[type[RequestError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModelError: grpc.StatusCode.NOT_FOUND,
    UnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
}
_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
# Clients accept 8 KiB of metadata. The message travels percent-encoded, three bytes for one beyond ASCII, and again in
# the details; these travel as base64, four bytes for three.
_MESSAGE_BYTES = 1536
_DETAILS_BYTES = 3584
_DESCRIPTION_BYTES = 300
_FIELD_BYTES = 100
_METADATA_BYTES = 64
# The type's name and the lengths around a detail.
_DETAIL_OVERHEAD_BYTES = 128

_logger = logging.getLogger(__name__)


def status_of(error: Exception, request_id: str) -> Status:
    """The status of what a handler raised; less than 7 KiB as metadata, whatever the request held.

    A RequestError's says what the error says: an ErrorInfo with its reason, the fields at fault in a BadRequest or a
    PreconditionFailure, a RetryInfo where another try may succeed. Any other error is INTERNAL, and nothing of it is
    told but the request's id.

    Args:
        error: What was raised.
        request_id: What the log knows the request by.
    """
    if not isinstance(error, RequestError):
        message = f"internal error; request id {request_id}"
        information = ErrorInfo(reason=INTERNAL_REASON, domain=DOMAIN)
        return _status(grpc.StatusCode.INTERNAL, message, [information, RequestInfo(request_id=request_id)])
    metadata = {key: _shortened(str(value), _METADATA_BYTES) for key, value in error.metadata.items()}
    message = _shortened(str(error), _MESSAGE_BYTES)
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after))
        details.append(retry)
    if isinstance(error, UnknownModelError):
        name = metadata.get("model", "")
        details.append(ResourceInfo(resource_type=Model.DESCRIPTOR.full_name, resource_name=name, description=message))
    status = _status(code_of(error), message, details)
    if error.violations:
        _add_fields_at_fault(status, error)
    return status


def code_of(error: RequestError) -> grpc.StatusCode:
    """The status code that an error is answered with."""
    return next(code for kind, code in _CODES.items() if isinstance(error, kind))


def _status(code: grpc.StatusCode, message: str, details: Sequence[Message]) -> Status:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _add_fields_at_fault(status: Status, error: RequestError) -> None:
    """Adds one detail with the fields at fault, as many as there is room for."""
    room = _DETAILS_BYTES - status.ByteSize() - _DETAIL_OVERHEAD_BYTES
    shown = list(error.violations)
    while shown and (detail := _fields_at_fault(error, shown)).ByteSize() > room:
        shown.pop()
    if shown:
        status.details.add().Pack(detail)


def _fields_at_fault(error: RequestError, violations: Sequence[Violation]) -> BadRequest | PreconditionFailure:
    texts = [
        (
            _shortened(violation.field, _FIELD_BYTES),
            _shortened(violation.description, _DESCRIPTION_BYTES),
            violation.reason,
        )
        for violation in violations
    ]
    if isinstance(error, UnavailableError):
        failed = PreconditionFailure()
        for field, text, reason in texts:
            failed.violations.add(type=reason, subject=field, description=text)
        return failed
    bad = BadRequest()
    for field, text, reason in texts:
        bad.field_violations.add(field=field, description=text, reason=reason)
    return bad


def _shortened(text: str, limit: int) -> str:
    """As much of the text as takes `limit` bytes where gRPC percent-encodes it."""
    used = 0
    for position, character in enumerate(text):
        used += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if used > limit:
            return f"{text[:position]}…"
    return text


@asynccontextmanager
async def abort_on_error(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Aborts the call with the status of what it raises; an unexpected error's details go to the log alone.

    Raises:
        grpc.aio.AbortError: In place of what was raised. A cancelled call's CancelledError is left as it is.
    """
    try:
        yield
    except (grpc.RpcError, grpc.aio.AbortError):
        # The call has ended, or was aborted within; gRPC knows.
        raise
    except Exception as error:
        status = _recorded(error)
        metadata = (*(context.trailing_metadata() or ()), (DETAILS_KEY, status.SerializeToString()))
        await context.abort(_CODES_BY_NUMBER[status.code], status.message, metadata)


def _recorded(error: Exception) -> Status:
    """The status, once the call's record has it, and the log what only the operator may see."""
    record = call_record.current()
    request_id = record.request_id or secrets.token_hex(8)
    if not isinstance(error, RequestError):
        _logger.error("request %s failed", request_id, exc_info=error)
    status = status_of(error, request_id)
    record.code = _CODES_BY_NUMBER[status.code].name
    record.reason = error.reason if isinstance(error, RequestError) else INTERNAL_REASON
    return status
