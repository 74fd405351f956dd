"""What watches every call from outside: its record, its final code, its metrics, its line in the log, its span."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote

import grpc

from ..calls.call_record import CallRecord, bind
from ..calls.codec import parsed
from ..calls.status import abort_on_error
from ..calls.wrapping import method_of, with_method
from .metrics import Metrics
from .request_log import log_request
from .tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

REQUEST_ID = "x-request-id"
"""The metadata in which a client may name its request, and in which, trailing, it is told the name."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEALTH = "/grpc.health."
"""Probes, which come every few seconds from everywhere, are not traced."""
_DEADLINE_SLACK = 0.1
"""Seconds that a call may have left here when its client gives up at the deadline: its request took some to come.

Besides, gRPC rounds up what it tells the server, by a percent at most.
"""

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ObservationInterceptor(grpc.aio.ServerInterceptor):
    """Observes every call from its first moment to its last; the outermost interceptor.

    It ends with the task that answers the call, since calls also end where no handler is asked: an unknown method, a
    message that is too large, a client that has gone.

    Args:
        metrics: Where calls are counted.
        tracing: Where their spans go, if anywhere.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Binds the call's record to its task, and puts the method in a wrapper that notes how it ends."""
        metadata = {
            key: value for key, value in handler_call_details.invocation_metadata or () if isinstance(value, str)
        }
        record = CallRecord(request_id=_request_id(metadata), method=handler_call_details.method)
        bind(record)
        span = None
        if self._tracing is not None and not record.method.startswith(_HEALTH):
            span = self._tracing.start(record.method, metadata)
        self._metrics.started(record)
        task = cast("asyncio.Task[object]", asyncio.current_task())
        task.add_done_callback(lambda _: self._end(record, span))
        record.code = grpc.StatusCode.UNKNOWN.name
        handler = await continuation(handler_call_details)
        if handler is None:
            record.code = grpc.StatusCode.UNIMPLEMENTED.name
            return None
        # Until the method begins: gRPC tells nobody but the client when it refuses a message for its size.
        record.code = grpc.StatusCode.RESOURCE_EXHAUSTED.name
        return _observed(handler, record)

    def _end(self, record: CallRecord, span: "Span | None") -> None:
        seconds = time.monotonic() - record.started
        self._metrics.ended(record, seconds)
        names = {}
        if self._tracing is not None and span is not None:
            names = self._tracing.names(span)
            self._tracing.end(span, record)
        log_request(record, seconds, names)


class _Outcome:
    """Notes in a call's record how its method ends, and what gRPC alone knows of the call."""

    def __init__(self, record: CallRecord, context: _Context) -> None:
        self._record = record
        self._context = context
        self._seconds = context.time_remaining()

    def __enter__(self) -> None:
        self._record.peer = unquote(self._context.peer())
        self._context.set_trailing_metadata(((REQUEST_ID, self._record.request_id),))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        code: grpc.StatusCode | None = self._context.code()
        if kind is None:
            code = code or grpc.StatusCode.OK
        elif issubclass(kind, asyncio.CancelledError) or (code is None and issubclass(kind, grpc.aio.BaseError)):
            # What cannot be sent any more is a client that has gone, too.
            code = grpc.StatusCode.DEADLINE_EXCEEDED if self._is_late() else grpc.StatusCode.CANCELLED
        else:
            # An abort has set the code.
            code = code or grpc.StatusCode.UNKNOWN
        self._record.code = code.name

    def _is_late(self) -> bool:
        if self._seconds is None:
            return False
        return bool(self._context.time_remaining() <= _DEADLINE_SLACK + 0.01 * self._seconds)


def _observed(handler: _Handler, record: CallRecord) -> _Handler:
    """The handler with its method wrapped.

    A single request is parsed in the wrapper: gRPC would answer one that is no message with the exception's own text,
    unseen.
    """
    method = method_of(handler)
    parse = None if handler.request_streaming else handler.request_deserializer

    async def answer(request: Any, context: _Context) -> Any:
        with _Outcome(record, context):
            return await method(await _parsed(parse, request, context), context)

    observed: _Handler = with_method(handler, answer, parses=parse is not None)
    return observed


async def _parsed(parse: Callable[[bytes], Any] | None, request: Any, context: _Context) -> Any:
    """The request; the call is aborted where it is no message of its type."""
    if parse is None:
        return request
    async with abort_on_error(context):
        return await parsed(parse, request)


def _request_id(metadata: Mapping[str, str]) -> str:
    given = metadata.get(REQUEST_ID, "")
    # A name, not a secret: the operating system's randomness takes longer than all else here.
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
