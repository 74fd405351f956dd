"""From what a handler raises to the status its client sees."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from .errors import (
    AbandonedError,
    BusyError,
    InvalidRequestError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)

_STATUS: dict[type[RequestError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModelError: grpc.StatusCode.NOT_FOUND,
    UnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AbandonedError: grpc.StatusCode.CANCELLED,
}

_logger = logging.getLogger(__name__)


@contextmanager
def abort_on_error(context: grpc.ServicerContext) -> Iterator[None]:
    """Aborts the call with the status of what it raises; an unexpected error's details go to the log alone."""
    try:
        yield
    except RequestError as error:
        context.abort(_STATUS[type(error)], str(error))
    except grpc.RpcError:
        # The call ended while it was being read from; gRPC knows.
        raise
    except Exception:
        request_id = secrets.token_hex(8)
        _logger.exception("request %s failed", request_id)
        context.abort(grpc.StatusCode.INTERNAL, f"internal error; request id {request_id}")
