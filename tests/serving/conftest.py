"""Real servers over real sockets, and model files to serve."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import grpc
import numpy as np
import onnx
import pytest
from infosink.serving.models.draws import draw
from infosink.serving.models.served_model import ServedModel, load_model
from infosink.serving.runtime.batching import BatchedSession, QueueBounds
from infosink.serving.runtime.session import Session, TerminatedError, Termination
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


@pytest.fixture(scope="session")
def running(start_server: Callable, schema_1: Path):
    """A server of tiny-images and tiny-points, both with encoders, and of tiny-images without, named "bare"."""
    generator_alone = load(schema_1 / "gen.onnx", name="bare")
    bare = ServedModel("bare", generator_alone.description, generator_alone.generator, None, generator_alone.limits)
    return start_server(load(schema_1 / "gen.onnx"), load(schema_1 / "points-gen.onnx"), bare)


@pytest.fixture(scope="session")
def stub(running) -> SamplingServiceStub:
    return running.stub


class HeldSession:
    """A real session whose runs wait as long as they are told to, and are counted."""

    def __init__(self, session: Session) -> None:
        self.real = session
        self.runs: list[tuple[int, list[str]]] = []
        """For each run that began, its rows and the outputs that it was asked for."""
        self.terminated: list[int] = []
        """The rows of each run that was ended early."""
        self._begun = threading.Semaphore(0)
        # Permits to run: one that is never used up where runs are not held.
        self._free = threading.Semaphore(1)
        self._held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: list[str], termination: Termination) -> list[np.ndarray]:
        rows = len(next(iter(feeds.values())))
        self.runs.append((rows, list(outputs)))
        self._begun.release()
        assert self._free.acquire(timeout=LIMIT)
        if not self._held:
            self._free.release()
        try:
            return self.real.run(feeds, outputs, termination)
        except TerminatedError:
            self.terminated.append(rows)
            raise

    def hold(self) -> None:
        """Holds runs from now on; not while one is under way."""
        if not self._held:
            self._held = True
            assert self._free.acquire(timeout=LIMIT)

    def release_one(self) -> None:
        """Lets one run go on."""
        self._free.release()

    def release(self) -> None:
        """Lets all runs go on."""
        if self._held:
            self._held = False
            self._free.release()

    def wait_for_run(self) -> None:
        """Waits until one more run has begun."""
        assert self._begun.acquire(timeout=LIMIT)

    async def until_run(self) -> None:
        await asyncio.to_thread(self.wait_for_run)


@dataclass(frozen=True)
class HeldModel:
    """A served model of which the generator's and the encoder's runs can be held."""

    model: ServedModel
    generator: HeldSession
    encoder: HeldSession


@pytest.fixture(scope="session")
def make_held(schema_1: Path) -> Callable[..., HeldModel]:
    """Makes a model to be held, and to be closed: tiny-images, or that of the given file.

    `bounds` are those of its queues.
    """

    def make(path: Path = schema_1 / "gen.onnx", encoder: Path | None = None, **bounds: Any) -> HeldModel:
        model = load(path, encoder=encoder)
        generator, encoder_of_it = HeldSession(model.generator.session), HeldSession(model.encoder.session)
        held = replace(
            model,
            generator=BatchedSession(generator, "generator", QueueBounds(**bounds)),
            encoder=BatchedSession(encoder_of_it, "encoder", QueueBounds(**bounds)),
        )
        return HeldModel(held, generator, encoder_of_it)

    return make


@pytest.fixture
def held_model(make_held: Callable[..., HeldModel]) -> Iterator[Callable[..., HeldModel]]:
    """As `make_held`; closed at the end."""
    made: list[HeldModel] = []

    def make(*arguments: Any, **bounds: Any) -> HeldModel:
        made.append(make_held(*arguments, **bounds))
        return made[-1]

    yield make
    for one in made:
        one.generator.release()
        one.encoder.release()
        one.model.close()


@pytest.fixture(scope="session")
def prior() -> Callable[..., dict[str, np.ndarray]]:
    """Latents of tiny-images: rows first to first + count - 1."""

    def make(count: int, first: int = 0) -> dict[str, np.ndarray]:
        draws = draw(3, first, count, styles=2, noise_dimensions=3)
        category = (np.arange(first, first + count) % 4).astype(np.int64)
        return {"category": category, "style": draws.style, "noise": draws.noise}

    return make


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
        """Waits for a line of stdout."""
        return self._line(self.popen.stdout)

    def error_line(self) -> str:
        """Waits for a line of stderr."""
        return self._line(self.popen.stderr)

    def _line(self, stream: IO[str]) -> str:
        """Waits for a line; a process that writes none within the limit is killed, which ends the wait."""
        watchdog = threading.Timer(LIMIT, self.popen.kill)
        watchdog.start()
        try:
            return stream.readline()
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
