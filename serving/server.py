"""The server's life: bind, serve, drain, end."""

import logging
import resource
from collections.abc import Mapping, Sequence

import grpc
from google.protobuf.descriptor_pool import Default
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from infosink.oip.open_inference_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from infosink.v1.sampling_service_pb2 import DESCRIPTOR
from infosink.v1.sampling_service_pb2_grpc import add_SamplingServiceServicer_to_server

from .calls.door import CHECK_BYTES, Door
from .calls.health import HealthService
from .calls.reflection import V1 as REFLECTION_V1
from .calls.reflection import ReflectionService, add_reflection
from .errors import StartupError
from .limits import MESSAGE_BYTES
from .models.registry import Registry
from .open_inference.service import SERVICE_NAME as OPEN_INFERENCE
from .open_inference.service import OpenInferenceService, OtherMethods
from .runtime.admission import Admission
from .sampling.service import SamplingService
from .settings import Settings

WATCHES = 64
REFLECTIONS = 16
CONCURRENT_CALLS = 1024
"""Calls of all kinds at once."""
CONNECTIONS = 512
"""At once, on the main port; a quarter as many on the port for health."""
METADATA_BYTES = 16 * 2**10
"""Of all the headers of one call; more are refused."""

SERVICE_NAME: str = DESCRIPTOR.services_by_name["SamplingService"].full_name
SERVICES = (SERVICE_NAME, OPEN_INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME)
METHODS = (
    *(f"/{service}/{method.name}" for service in SERVICES for method in Default().FindServiceByName(service).methods),
    f"/{REFLECTION_V1}/ServerReflectionInfo",
)
"""The full names of what is answered."""

_logger = logging.getLogger(__name__)
_grpc_logger = logging.getLogger("grpc._cython.cygrpc")

_OPTIONS = [
    # Otherwise two servers can share a port, each answering some of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # Below the first, headers pass; between the two, they may; above the second, they never do.
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.max_concurrent_streams", 2 * CONCURRENT_CALLS),
    # A client that vanished without a word frees its stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # One without calls makes room for others; its client connects again with its next call.
    ("grpc.max_connection_idle_ms", 300_000),
]
_HEALTH_OPTIONS = {
    "grpc.max_receive_message_length": CHECK_BYTES,
    # A probe asks once, and connects anew for the next time.
    "grpc.max_connection_idle_ms": 10_000,
}


class Server:
    """A gRPC server over loaded models, on the running event loop.

    Args:
        registry: The models.
        settings: Where to listen, and how much to let in.
        interceptors: What every call on the main port goes through, the first one first.
        credentials: How the main port is secured; in the clear where None.

    Raises:
        StartupError: If an address cannot be bound.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.registry = registry
        self.admission = Admission(rows=settings.queue_rows, size=settings.queue_bytes)
        self.health = HealthService(self._names, WATCHES)
        self._reflection = ReflectionService(SERVICES, REFLECTIONS)
        self._door = Door(CONCURRENT_CALLS)
        connections = _connections()
        self._server = grpc.aio.server(interceptors=[*interceptors, self._door], options=_options(connections, {}))
        add_SamplingServiceServicer_to_server(SamplingService(registry, self.admission), self._server)
        add_HealthServicer_to_server(self.health, self._server)
        add_reflection(self._reflection, self._server)
        open_inference = OpenInferenceService(registry, self.admission, self.health.is_serving)
        add_GRPCInferenceServiceServicer_to_server(open_inference, self._server)
        # Asked after the services before it.
        self._server.add_generic_rpc_handlers((OtherMethods(),))
        self.address = _bind(self._server, settings.host, settings.port, "--port", credentials)
        """HOST:PORT."""
        self._health_server: grpc.aio.Server | None = None
        self.health_address: str | None = None
        """Of the port for health alone, where there is one."""
        if settings.health_port is not None:
            self._health_server = grpc.aio.server(
                interceptors=[Door(WATCHES)], options=_options(connections // 4, _HEALTH_OPTIONS)
            )
            add_HealthServicer_to_server(self.health, self._health_server)
            self.health_address = _bind(self._health_server, settings.host, settings.health_port, "--health-port")

    async def start(self) -> None:
        """Answers calls from now on."""
        for server in self._servers():
            await server.start()
        self.health.serving()

    async def drain(self, grace: float) -> None:
        """Turns NOT_SERVING, accepts no more calls, and lets those under way end, for at most `grace` seconds."""
        self.health.end()
        self._reflection.end()
        await self._door.close(lambda: self._server.stop(grace))
        if self._health_server is not None:
            # Its watches have ended; whoever else is still there has had that time already.
            await self._health_server.stop(None)

    def _servers(self) -> list[grpc.aio.Server]:
        """The main one first: health is answered for as long as anything is."""
        return [self._server, *([self._health_server] if self._health_server else [])]

    def _names(self) -> list[str]:
        return [SERVICE_NAME, OPEN_INFERENCE, *(model.name for model in self.registry.all())]


def _connections() -> int:
    """How many are let in at once; fewer where the process may open few files, of which half are for all else.

    Without a descriptor for the next connection gRPC would keep everyone waiting, and metrics could not be read.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= 2 * CONNECTIONS:
        return CONNECTIONS
    _logger.warning(
        "%d connections are let in at once, not %d, since this process may open no more than %d files: "
        "have ulimit -n allow %d", files // 2, CONNECTIONS, files, 2 * CONNECTIONS,
    )  # fmt: skip
    return files // 2


def _options(connections: int, others: Mapping[str, int]) -> list[tuple[str, int]]:
    """The options of a port that lets in so many connections, and closes those that come on top of them."""
    return list({**dict(_OPTIONS), **others, "grpc.max_allowed_incoming_connections": connections}.items())


def _is_news(record: logging.LogRecord) -> bool:
    """Whether gRPC reports more than that a client had gone when its answer was sent."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


_grpc_logger.addFilter(_is_news)


def _bind(
    server: grpc.aio.Server, host: str, port: int, option: str, credentials: grpc.ServerCredentials | None = None
) -> str:
    """Binds a port; returns the address."""
    shown_host = f"[{host}]" if ":" in host else host
    address = f"{shown_host}:{port}"
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        raise StartupError(
            f"cannot listen on {address}: the port is in use or the address is not this machine's; "
            f"name another with {option} or --host"
        ) from None
    return f"{shown_host}:{bound}"
