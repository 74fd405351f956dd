"""The server's life: bind, serve, drain, end."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server
from infosink.v1.sampling_service_pb2 import DESCRIPTOR
from infosink.v1.sampling_service_pb2_grpc import add_SamplingServiceServicer_to_server

from .errors import StartupError
from .health import HealthService
from .limits import MESSAGE_BYTES
from .reflection import ReflectionService
from .served_model import ServedModel
from .service import SamplingService

STREAMS = 8
"""StreamSamples calls at once."""
UNARY_CALLS = 8
"""Sample and InferCodes calls at once, together."""
WATCHES = 4
REFLECTIONS = 2
UNARY_THREADS = 4
"""Threads that the calls above cannot occupy: for Check, GetModel, ListModels, and for refusals."""
THREADS = STREAMS + UNARY_CALLS + WATCHES + REFLECTIONS + UNARY_THREADS
"""Each reads one request at a time. A request of 4 MiB can take 28 times as much when it is parsed (two million empty
codes), so that requests take 3 GiB at worst, until they are refused."""
CONCURRENT_CALLS = 40
"""Those that have a thread and those that wait for one, unread; more are refused with RESOURCE_EXHAUSTED."""

SERVICE_NAME: str = DESCRIPTOR.services_by_name["SamplingService"].full_name

_OPTIONS = [
    # Otherwise two servers can share a port, each answering some of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 2 * CONCURRENT_CALLS),
    # A client that vanished without a word frees its stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class Server:
    """A gRPC server over loaded models.

    Args:
        models: The models, each under a name of its own, at least one; the first is the default.
        host: The interface to bind.
        port: The port to bind; 0 picks a free one.

    Raises:
        StartupError: If the address cannot be bound, or the models' descriptions exceed one message.
    """

    def __init__(self, models: Sequence[ServedModel], host: str, port: int) -> None:
        if sum(model.message().ByteSize() + 8 for model in models) > MESSAGE_BYTES:
            raise StartupError(f"the descriptions of {len(models)} models exceed 4 MiB in all: serve fewer")
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="call"),
            options=_OPTIONS,
            maximum_concurrent_rpcs=CONCURRENT_CALLS,
        )
        self._health = HealthService([SERVICE_NAME, *(model.name for model in models)], WATCHES)
        add_SamplingServiceServicer_to_server(SamplingService(models, STREAMS, UNARY_CALLS), self._server)
        add_HealthServicer_to_server(self._health, self._server)
        services = [SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._reflection = ReflectionService(services, REFLECTIONS)
        add_ServerReflectionServicer_to_server(self._reflection, self._server)
        shown_host = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{shown_host}:{port}")
        except RuntimeError:
            raise StartupError(
                f"cannot listen on {shown_host}:{port}: the port is in use or the address is not this machine's; "
                "name another with --port or --host"
            ) from None
        self.address = f"{shown_host}:{bound}"

    def start(self) -> None:
        """Answers calls from now on."""
        self._server.start()
        self._health.serving()

    def drain(self, grace: float) -> threading.Event:
        """Turns NOT_SERVING, accepts no more calls and lets those under way end, for at most `grace` seconds.

        Returns:
            An event that is set when the last call has ended.
        """
        self._health.drain()
        self._reflection.drain()
        ended: threading.Event = self._server.stop(grace)
        return ended
