"""Server reflection, in a bounded number of streams that end when the server drains."""

# ruff: noqa: N802  (methods bear the names of the .proto file)

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from ..errors import DrainingError
from .call_limit import CallLimit
from .field_limit import malformed
from .status import abort_on_error

V1 = "grpc.reflection.v1.ServerReflection"
"""What newer tools ask for: the same messages under another name, of which the package knows nothing."""


class ReflectionService(ReflectionServicer):  # type: ignore[misc]  # the package is untyped
    """Describes the served services to tools that have no .proto file. For one event loop.

    Args:
        names: The full names of the services.
        streams: How many calls may be open at once; each lasts as long as its client keeps asking.
    """

    def __init__(self, names: Sequence[str], streams: int) -> None:
        super().__init__(names)
        self._limit = CallLimit(streams, "reflection streams")
        self._ended = asyncio.Event()

    async def ServerReflectionInfo(
        self,
        request_iterator: AsyncIterator[ServerReflectionRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[ServerReflectionResponse]:
        """Answers each question in turn."""
        async with abort_on_error(context):
            with self._limit:
                async for response in super().ServerReflectionInfo(self._until_ended(request_iterator), context):
                    yield response

    def end(self) -> None:
        """Ends the open streams, since each waits for a question that may never come, and later ones."""
        self._ended.set()

    async def _until_ended(
        self, requests: AsyncIterator[ServerReflectionRequest]
    ) -> AsyncIterator[ServerReflectionRequest]:
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            while True:
                asked = asyncio.ensure_future(anext(requests, None))
                try:
                    await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not asked.done():
                        raise DrainingError("the server is shutting down: ask another")
                    request = await asked
                except DecodeError:
                    raise malformed() from None
                finally:
                    asked.cancel()
                if request is None:
                    return
                yield request
        finally:
            ended.cancel()


def add_reflection(service: ReflectionService, server: grpc.aio.Server) -> None:
    """Has the server answer with `service` under both its names."""
    add_ServerReflectionServicer_to_server(service, server)
    handler = grpc.stream_stream_rpc_method_handler(
        service.ServerReflectionInfo,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),))
