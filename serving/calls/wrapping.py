"""gRPC's method handlers with something around their methods."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc

Handler = Any
"""An RpcMethodHandler; in a module whose types are checked it has four type parameters, at run time none."""
Method = Callable[[Any, Any], Awaitable[Any]]
"""What takes the request, or the iterator of requests, and the context. Of responses that are a stream, it writes each
to the context."""

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def method_of(handler: Handler) -> Method:
    """The handler's method; one that yields its responses as one that writes them.

    gRPC would write them too, but leave a generator whose client has gone to be ended by the garbage collector; here
    what it holds is given back at once.
    """
    method = cast(
        "Callable[..., Any]",
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream,
    )
    if not inspect.isasyncgenfunction(method):
        return method

    async def write(request: Any, context: Any) -> None:
        async with aclosing(method(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write


def with_method(handler: Handler, method: Method, *, parses: bool = False) -> Handler:
    """The handler with another method; `parses` says that it takes the bytes of a single request."""
    make: Callable[..., Handler] = _MAKERS[handler.request_streaming, handler.response_streaming]
    return make(
        method,
        request_deserializer=None if parses else handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
