"""grpc.health.v1: Check and Watch.

The servicer of the grpcio-health-checking package sends under the lock that its close callbacks take, on the thread
that completes sends: a watch that closes while a status is being sent stops the whole server. Here nothing is sent
under a lock, and watches end when the server drains.
"""

# ruff: noqa: N802  (methods bear the names of the .proto file)

import threading
from collections.abc import Iterator, Sequence

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from .concurrency import ConcurrencyLimit
from .status import abort_on_error


class HealthService(HealthServicer):  # type: ignore[misc]  # the package is untyped
    """The one status that the server, its services and its models share: all are loaded before any is served.

    Args:
        names: The services and models that have a status, besides the server as a whole, whose name is "".
        watches: How many Watch calls may be open at once.
    """

    def __init__(self, names: Sequence[str], watches: int) -> None:
        self._names = frozenset(["", *names])
        self._watches = ConcurrencyLimit(watches, "health watches")
        self._changed = threading.Condition()
        self._status = HealthCheckResponse.NOT_SERVING
        self._draining = False

    def serving(self) -> None:
        """SERVING from now on."""
        with self._changed:
            self._status = HealthCheckResponse.SERVING
            self._changed.notify_all()

    def drain(self) -> None:
        """NOT_SERVING for good; watches end once they have said so, since none would ever end by itself."""
        with self._changed:
            self._status = HealthCheckResponse.NOT_SERVING
            self._draining = True
            self._changed.notify_all()

    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:
        """The status of a name; NOT_FOUND where it has none."""
        if request.service not in self._names:
            context.abort(grpc.StatusCode.NOT_FOUND, "no service or model of this name is served")
        return HealthCheckResponse(status=self._status)

    def Watch(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[HealthCheckResponse]:
        """The status of a name now and whenever it changes; SERVICE_UNKNOWN where it has none."""
        with abort_on_error(context), self._watches:
            context.add_callback(self._wake)
            sent = None
            draining = False
            while not draining and context.is_active():
                with self._changed:
                    while not self._draining and context.is_active() and self._shown(request.service) == sent:
                        self._changed.wait()
                    draining, status = self._draining, self._shown(request.service)
                if status != sent:
                    sent = status
                    yield HealthCheckResponse(status=status)

    def _shown(self, name: str) -> HealthCheckResponse.ServingStatus:
        return self._status if name in self._names else HealthCheckResponse.SERVICE_UNKNOWN

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
