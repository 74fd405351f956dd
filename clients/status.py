"""What a refused call's trailing metadata says beyond its code and message: a google.rpc.Status."""

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from .errors import Violation
from .printable import printable

_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Details:
    """A status's details; empty where it has none, or none that can be read."""

    reason: str = ""
    """The kind of refusal, such as "LIMIT_EXCEEDED"."""
    violations: tuple[Violation, ...] = ()
    """The fields of the request that are at fault."""
    retry_after: float | None = None
    """Seconds after which another try may succeed."""
    request_id: str = ""
    """What the server's log knows the request by."""


def details_of(error: Any) -> Details:
    """The details of a call's grpc.RpcError; of those of one kind, the last one's."""
    found: dict[str, Any] = {}
    try:
        for detail in _status(error).details:
            found |= _read(detail)
    except DecodeError:
        # The code and the message say enough.
        return Details()
    return Details(**found)


def _status(error: Any) -> Status:
    for key, value in error.trailing_metadata() or ():
        if key == _KEY:
            return Status.FromString(value)
    return Status()


def _read(detail: Any) -> dict[str, Any]:
    information, bad, failed, retry, request = (
        ErrorInfo(),
        BadRequest(),
        PreconditionFailure(),
        RetryInfo(),
        RequestInfo(),
    )
    if detail.Unpack(information):
        return {"reason": printable(information.reason)}
    if detail.Unpack(bad):
        fields = [(violation.field, violation.description) for violation in bad.field_violations]
        return {"violations": _violations(fields)}
    if detail.Unpack(failed):
        return {
            "violations": _violations([(violation.subject, violation.description) for violation in failed.violations])
        }
    if detail.Unpack(retry):
        return {"retry_after": max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)}
    if detail.Unpack(request):
        return {"request_id": printable(request.request_id)}
    return {}


def _violations(fields: list[tuple[str, str]]) -> tuple[Violation, ...]:
    return tuple(Violation(printable(field), printable(description)) for field, description in fields)
