"""Whether a call comes in at all, told before its message is read.

Also the moment at which a server stops accepting calls, as its clients see it. gRPC answers a call that meets a
listener in the act of closing with CANCELLED, which no client tries again elsewhere. So that no call is on its way in
that moment, calls and answers are held for an instant before it: whoever waits for an answer asks nothing new. With the
answer then comes the word that the connection takes no more calls; what was held at the door is refused with
UNAVAILABLE.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from ..errors import BusyError, DeadlineError, DrainingError, InvalidRequestError, RequestError
from .call_limit import CallLimit
from .field_limit import malformed
from .status import abort_on_error
from .wrapping import Handler, method_of, with_method

_INSTANT = 0.05
"""Seconds in which what is on its way arrives."""
_CHECK = "/grpc.health.v1.Health/Check"
CHECKS = 128
"""Health checks at once. Each is answered as soon as its message is there, so that open ones wait for theirs."""
CHECK_SECONDS = 5.0
"""A health check's message comes within this time, and its answer is read within it, or others have its place."""
CHECK_BYTES = 1024
"""A health check's message: the name of a service or a model, and room for one that is none."""


class Door(grpc.aio.ServerInterceptor):
    """Lets calls in until it closes, and so many at once; the last interceptor, so that the others see whom it refuses.

    Args:
        calls: How many calls may be open at once, of all kinds but health checks, for which there are places of their
            own. A message takes 4 MiB at most.
    """

    def __init__(self, calls: int) -> None:
        self._calls = CallLimit(calls, "calls")
        self._checks = CallLimit(CHECKS, "health checks")
        self._open = True
        self._free = asyncio.Event()
        self._free.set()
        # Of a service's methods the handlers are always the same.
        self._held = lru_cache(self._hold)

    async def close(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Runs `stop`, which has the server accept no more calls, while no call is on its way; returns with it."""
        self._open = False
        self._free.clear()
        await asyncio.sleep(_INSTANT)
        stopped = asyncio.ensure_future(stop())
        # Its first step tells the clients.
        await asyncio.sleep(0)
        self._free.set()
        await stopped

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Finds the call's handler: its own, or one that refuses."""
        if not self._open:
            await self._free.wait()
            return _refusing(DrainingError("the server is shutting down: ask another"))
        is_check = handler_call_details.method == _CHECK
        counted = ExitStack()
        try:
            counted.enter_context(self._checks if is_check else self._calls)
        except BusyError as error:
            return _refusing(error)
        # A call also ends where no handler is asked.
        cast("asyncio.Task[object]", asyncio.current_task()).add_done_callback(lambda _: counted.close())
        handler = await continuation(handler_call_details)
        return None if handler is None else self._held(handler, is_check)

    def _hold(self, handler: Handler, is_check: bool) -> Handler:
        """The handler, with a method whose answers are held while the door closes."""
        if is_check:
            handler = _reading_in_time(handler)
        method = method_of(handler)

        async def answer_when_open(request: Any, context: Any) -> Any:
            try:
                return await method(request, context)
            finally:
                await self._free.wait()

        return with_method(handler, answer_when_open)


def _reading_in_time(handler: Handler) -> Handler:
    """A handler of health checks that waits no longer for a message than it may take, and reads none that is large.

    gRPC would wait for ever. Where requests are a stream it leaves the waiting to the method.
    """

    async def answer(requests: Any, context: Any) -> Any:
        async with abort_on_error(context):
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    message = await anext(requests)
                if len(message) > CHECK_BYTES:
                    raise InvalidRequestError(
                        f"the message of a health check has {len(message)} bytes, over the limit of {CHECK_BYTES}: "
                        "name a service or a model, or nothing",
                        reason="LIMIT_EXCEEDED",
                        metadata={"value": len(message), "limit": CHECK_BYTES},
                    )
                request = handler.request_deserializer(message)
            except TimeoutError:
                raise DeadlineError(
                    f"the message of a health check did not come within {CHECK_SECONDS:g} seconds: try again",
                    reason="DEADLINE_EXPIRED",
                ) from None
            except (DecodeError, StopAsyncIteration):
                raise malformed() from None
        # The task ends when the answer is read.
        task = cast("asyncio.Task[object]", asyncio.current_task())
        unread = asyncio.get_running_loop().call_later(CHECK_SECONDS, task.cancel)
        task.add_done_callback(lambda _: unread.cancel())
        return await handler.unary_unary(request, context)

    return grpc.stream_unary_rpc_method_handler(answer, response_serializer=handler.response_serializer)


def _refusing(error: RequestError) -> Handler:
    """A handler that reads no message: gRPC asks that of a stream of requests at once, whatever the client sends."""

    async def refuse(_requests: Any, context: Any) -> None:
        async with abort_on_error(context):
            raise error

    return grpc.stream_stream_rpc_method_handler(refuse)
