"""From what a handler raises to the status its client sees."""

import logging
import secrets
import threading
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
def answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Turns what a call raises into its status; an unexpected error's details go to the log alone."""
    try:
        yield
    except RequestError as error:
        context.abort(_STATUS[type(error)], str(error))
    except grpc.RpcError:
        # The client went while it was being read from; gRPC knows.
        raise
    except Exception:
        request_id = secrets.token_hex(8)
        _logger.exception("request %s failed", request_id)
        context.abort(grpc.StatusCode.INTERNAL, f"internal error; request id {request_id}")


class Slots:
    """How many calls of one kind may be open at once: a call occupies a thread for as long as its client pleases.

    Args:
        count: How many.
        kind: What they are, in the plural, for messages.
    """

    def __init__(self, count: int, kind: str) -> None:
        self._message = f"{count} {kind} are open, as many as this server allows: try again later"
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Occupies a slot within the context.

        Raises:
            BusyError: If none is free.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError(self._message)
        try:
            yield
        finally:
            self._free.release()
