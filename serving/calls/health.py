"""grpc.health.v1: Check and Watch.

Answered on the event loop, which no run of a model holds up, from one status that the server, its services and its
models share: all are loaded before any is served.
"""

# ruff: noqa: N802  (methods bear the names of the .proto file)

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from .call_limit import CallLimit
from .status import abort_on_error


class HealthService(HealthServicer):  # type: ignore[misc]  # the package is untyped
    """The status of the server, its services and its models. For one event loop.

    Args:
        names: Says which services and models have a status now, besides the server as a whole, whose name is "".
        watches: How many Watch calls may be open at once.
    """

    def __init__(self, names: Callable[[], Collection[str]], watches: int) -> None:
        self._names = names
        self._watches = CallLimit(watches, "health watches")
        self._status = HealthCheckResponse.NOT_SERVING
        self._ended = False
        self._changed = asyncio.Event()

    def serving(self) -> None:
        """SERVING from now on."""
        self._status = HealthCheckResponse.SERVING
        self.renamed()

    def not_serving(self) -> None:
        """NOT_SERVING for good."""
        self._status = HealthCheckResponse.NOT_SERVING
        self.renamed()

    def is_serving(self) -> bool:
        """Whether the server takes on work."""
        serving: bool = self._status == HealthCheckResponse.SERVING
        return serving

    def end(self) -> None:
        """Watches end, once they have said NOT_SERVING, since none would ever end by itself."""
        self._ended = True
        self.not_serving()

    def renamed(self) -> None:
        """Has watches look again, since what they watch may be served, or not be served, from now on."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self, request: HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> HealthCheckResponse:
        """The status of a name; NOT_FOUND where it has none."""
        status = self._shown(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service or model of this name is served")
        return HealthCheckResponse(status=status)

    async def Watch(
        self, request: HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status of a name now and whenever it changes; SERVICE_UNKNOWN where it has none."""
        async with abort_on_error(context):
            with self._watches:
                sent = None
                while True:
                    changed, ended, status = self._changed, self._ended, self._shown(request.service)
                    if status != sent:
                        sent = status
                        yield HealthCheckResponse(status=status)
                    if ended:
                        return
                    await changed.wait()

    def _shown(self, name: str) -> HealthCheckResponse.ServingStatus:
        known = name == "" or name in self._names()
        return self._status if known else HealthCheckResponse.SERVICE_UNKNOWN
