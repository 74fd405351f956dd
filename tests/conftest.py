"""What the tests of several parts share."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import grpc
    from infosink.serving.server import Server
    from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

REPOSITORY = Path(__file__).parent.parent

# Tests work on small batches, where one thread is as fast as several, and faster on a busy machine. Set before torch is
# imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_directory() -> Iterator[Path]:
    """The cache of this process and of those it starts: $INFOSINK_CACHE, else .venv/data; never the user's own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        directory = Path(os.environ.get("INFOSINK_CACHE") or REPOSITORY / ".venv" / "data").absolute()
        monkeypatch.setenv("INFOSINK_CACHE", str(directory))
        yield directory


@pytest.fixture(scope="session")
def mnist_directory(cache_directory: Path) -> Path:
    """A folder with the four original MNIST files, fetched on first use."""
    from infosink.training.datasets.mnist_files import MNIST, read_or_fetch

    read_or_fetch(MNIST.cache)
    return MNIST.cache


LIMIT = 60
"""Seconds after which a test that waits has failed."""


@pytest.fixture(scope="session")
def server_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, for servers in this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT)
    loop.close()


@dataclass
class RunningServer:
    """A server in this process, and a channel to it."""

    loop: asyncio.AbstractEventLoop
    server: "Server"
    channel: "grpc.Channel"

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def stub(self) -> "SamplingServiceStub":
        from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

        return SamplingServiceStub(self.channel)

    def drain(self, grace: float = 0) -> "threading.Event":
        """Begins to drain; the event is set at the end."""
        ended = threading.Event()
        drained = asyncio.run_coroutine_threadsafe(self.server.drain(grace), self.loop)
        drained.add_done_callback(lambda _: ended.set())
        return ended


@pytest.fixture(scope="session")
def start_server(server_loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers over given models, each on a free port, and stops them at the end.

    Keyword arguments are the fields of Settings; `interceptors` and `credentials` are Server's own.
    """
    import grpc
    from infosink.serving.models.registry import Registry
    from infosink.serving.server import Server
    from infosink.serving.settings import Settings

    running: list[RunningServer] = []

    async def begin(models: Sequence[Any], interceptors: Any, credentials: Any, settings: dict[str, Any]) -> Server:
        server = Server(
            Registry(models), Settings(**{"port": 0, **settings}), interceptors=interceptors, credentials=credentials
        )
        await server.start()
        return server

    def start(*models: Any, interceptors: Any = (), credentials: Any = None, **settings: Any) -> RunningServer:
        begun = begin(models, interceptors, credentials, settings)
        server = asyncio.run_coroutine_threadsafe(begun, server_loop).result(LIMIT)
        running.append(RunningServer(server_loop, server, grpc.insecure_channel(server.address)))
        return running[-1]

    yield start
    for one in running:
        one.channel.close()
    for one in running:
        assert one.drain().wait(LIMIT)
