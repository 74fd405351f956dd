"""Real servers over real sockets, and model files to serve."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import onnx
import pytest
from infosink.serving.served_model import ServedModel, load_model
from infosink.serving.server import Server
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from onnx import helper

SCHEMA_1 = Path(__file__).parents[1] / "compatibility" / "schema-1"
COMMAND = Path(sys.executable).with_name("infosink-serve")
LIMIT = 60
"""Seconds after which a test that waits has failed."""

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="session")
def schema_1() -> Path:
    """The folder of the committed model files: tiny-images with its encoder, tiny-points with its own."""
    return SCHEMA_1


def load(path: Path, *, name: str | None = None, encoder: Path | None = None) -> ServedModel:
    return load_model(path, name=name, encoder_path=encoder, device="cpu", threads=1, stream_samples=1_000_000)


@pytest.fixture(scope="session")
def load_file() -> Callable[..., ServedModel]:
    return load


@dataclass
class RunningServer:
    """A server in this process, and a channel to it."""

    address: str
    channel: grpc.Channel

    @property
    def stub(self) -> SamplingServiceStub:
        return SamplingServiceStub(self.channel)


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers over given models, each on a free port, and stops them at the end."""
    servers: list[Server] = []
    channels: list[grpc.Channel] = []

    def start(*models: ServedModel) -> RunningServer:
        server = Server(models, "127.0.0.1", 0)
        server.start()
        servers.append(server)
        channels.append(grpc.insecure_channel(server.address))
        return RunningServer(server.address, channels[-1])

    yield start
    for channel in channels:
        channel.close()
    for server in servers:
        assert server.drain(0).wait(LIMIT)


@pytest.fixture(scope="session")
def running(start_server: Callable[..., RunningServer], schema_1: Path) -> RunningServer:
    """A server of tiny-images and tiny-points, both with encoders, and of tiny-images without, named "bare"."""
    generator_alone = load(schema_1 / "gen.onnx", name="bare")
    bare = ServedModel("bare", generator_alone.description, generator_alone.generator, None, generator_alone.limits)
    return start_server(load(schema_1 / "gen.onnx"), load(schema_1 / "points-gen.onnx"), bare)


@pytest.fixture(scope="session")
def stub(running: RunningServer) -> SamplingServiceStub:
    return running.stub


@pytest.fixture
def altered(tmp_path: Path, schema_1: Path) -> Callable[..., Path]:
    """Writes a committed model file under a new name, with one thing changed."""

    def write(source: str, edit: Edit, name: str = "altered.onnx") -> Path:
        model = onnx.load(schema_1 / source)
        edit(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write


@pytest.fixture(scope="session")
def with_metadata() -> Callable[..., Edit]:
    """An edit that sets metadata by their names after `infosink.`, or removes those that are None."""

    def make(**changes: str | None) -> Edit:
        def edit(model: onnx.ModelProto) -> None:
            properties = {entry.key: entry.value for entry in model.metadata_props}
            for key, value in changes.items():
                properties.pop(f"infosink.{key}", None)
                if value is not None:
                    properties[f"infosink.{key}"] = value
            del model.metadata_props[:]
            helper.set_model_props(model, properties)

        return edit

    return make


class Process:
    """infosink-serve in a process of its own."""

    def __init__(self, arguments: list[str | bytes]) -> None:
        self.popen = subprocess.Popen(
            [COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def ready(self) -> str:
        """Waits for the ready line; returns the address it states."""
        self.ready_line = self.line()
        assert " on " in self.ready_line, self.ready_line + self.popen.communicate(timeout=LIMIT)[1]
        return self.ready_line.split(" on ")[1].split(",")[0]

    def line(self) -> str:
        """Waits for a line of stdout; a process that writes none within the limit is killed, which ends the wait."""
        assert self.popen.stdout is not None
        watchdog = threading.Timer(LIMIT, self.popen.kill)
        watchdog.start()
        try:
            return self.popen.stdout.readline()
        finally:
            watchdog.cancel()

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Waits for the end; returns the exit code and the rest of stdout and stderr."""
        out, err = self.popen.communicate(timeout=LIMIT)
        return self.popen.returncode, out, err


@pytest.fixture
def serve() -> Iterator[Callable[..., Process]]:
    """Starts infosink-serve with the given arguments; what still runs at the end is killed."""
    processes: list[Process] = []

    def start(*arguments: str | bytes | Path) -> Process:
        processes.append(Process([os.fspath(argument) for argument in arguments]))
        return processes[-1]

    yield start
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


@pytest.fixture(scope="session")
def refusal() -> Callable[..., tuple[grpc.StatusCode, str]]:
    """Calls with a request that must fail, and returns the status and the message."""

    def consume(method: Callable[..., object], request: object) -> None:
        answer = method(request, timeout=LIMIT)
        if isinstance(answer, Iterator):
            list(answer)

    def call(method: Callable[..., object], request: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            consume(method, request)
        return caught.value.code(), caught.value.details()

    return call
