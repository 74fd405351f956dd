"""Models are swapped while they are used: nothing is lost, nothing is mixed, and what is broken changes nothing."""

import asyncio
import hashlib
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from infosink.serving import shipped
from infosink.serving.errors import StartupError
from infosink.serving.models.model_sources import ModelSource, find_models
from infosink.serving.models.registry import Registry
from infosink.serving.models.reload import Reloader, Settling
from infosink.serving.models.served_model import ServedModel
from infosink.serving.models.validate import validate
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    ListModelsRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from onnx import numpy_helper

LIMIT = 60
DRAWING = SampleRequest(draw=Draw(count=5, seed=1), encoding=ENCODING_FLOAT32)
STREAMED = 40_000


def checkpoint(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()


@pytest.fixture
def put(schema_1: Path, with_metadata: Callable) -> Callable[..., None]:
    """Puts a version of tiny-images in a folder, its encoder first, each file whole or not at all."""

    def shift(name: str, version: str) -> Callable[[onnx.ModelProto], None]:
        amount = np.float32(int(checkpoint(version)[:4], 16) / 2**16)

        def edit(model: onnx.ModelProto) -> None:
            (bias,) = (one for one in model.graph.initializer if one.name == name)
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + amount, name))

        return edit

    def write(folder: Path, version: str, prefix: str = "") -> None:
        folder.mkdir(exist_ok=True)
        for file, bias in (("q.onnx", "std_bias"), ("gen.onnx", "bias")):
            model = onnx.load(schema_1 / file)
            shift(bias, version)(model)
            with_metadata(checkpoint_sha256=checkpoint(version))(model)
            unfinished = folder / f".{file}"
            onnx.save(model, unfinished)
            unfinished.replace(folder / f"{prefix}{file}")

    return write


class Watched:
    """A server's process, whose stderr is read line by line."""

    def __init__(self, process: object) -> None:
        self.process = process
        self.address = process.ready()
        self.channel = grpc.insecure_channel(self.address)
        self.stub = SamplingServiceStub(self.channel)
        self.health = HealthStub(self.channel)

    def hang_up(self) -> str:
        """Has the models reloaded; returns the line that says what came of it."""
        self.process.signal(signal.SIGHUP)
        return self.says()

    def says(self) -> str:
        """Waits for a line of stderr that is not about a request.

        A process that writes none within the limit is killed, which ends the wait.
        """
        while (line := self.process.error_line()) and not is_news(line):
            pass
        return line

    def hears(self, words: str) -> None:
        """Waits for a line of stderr with these words, whatever comes before it."""
        while words not in (line := self.process.error_line()):
            assert line, f"{words} was never said"

    def reloads(self) -> dict[tuple[str, str], float]:
        """How often each model was served anew, and how often it could not be, by a server with --metrics-port."""
        with urlopen(f"http://{self.process.ready_line.rpartition(' on ')[2].strip()}/metrics", timeout=LIMIT) as reply:
            counted = re.findall(
                r'^infosink_reloads_total{model="(.*)",outcome="(.*)"} (.*)$', reply.read().decode(), re.M
            )
        return {(model, outcome): float(count) for model, outcome, count in counted}

    def checkpoint(self, model: str = "") -> str:
        return self.stub.GetModel(GetModelRequest(model=model)).served_model.model.checkpoint_sha256

    def names(self) -> list[str]:
        return [one.model.name for one in self.stub.ListModels(ListModelsRequest()).served_models]

    def status(self, name: str) -> int:
        return self.health.Check(HealthCheckRequest(service=name)).status

    def ends_well(self) -> None:
        self.process.signal(signal.SIGTERM)
        code, _, err = self.process.end()
        assert (code, list(filter(is_news, err.splitlines()))) == (0, [])


def is_news(line: str) -> bool:
    return not line.startswith("infosink-serve: INFO: request ")


@pytest.fixture
def watched(serve: Callable) -> Iterator[Callable[..., Watched]]:
    channels: list[grpc.Channel] = []

    def start(*arguments: str | Path) -> Watched:
        server = Watched(serve(*arguments, "--port", "0", "--device", "cpu", "--threads", "1"))
        channels.append(server.channel)
        return server

    yield start
    for channel in channels:
        channel.close()


def test_a_reload_under_load_loses_and_mixes_nothing(watched: Callable, put: Callable, tmp_path: Path) -> None:
    put(tmp_path, "first")
    server = watched("--model", tmp_path / "gen.onnx")
    samples = server.stub.Sample(DRAWING).batch.tensor
    inferring = InferCodesRequest(tensor=samples)
    ended = threading.Event()
    under_way = threading.Barrier(5)

    def load() -> set[tuple[str, bytes, bytes]]:
        """Asks until told to stop; returns each checkpoint with what it gave."""
        given = set()
        with grpc.insecure_channel(server.address) as channel:
            stub = SamplingServiceStub(channel)
            stub.GetModel(GetModelRequest())
            under_way.wait(LIMIT)
            while not ended.is_set():
                batch = stub.Sample(DRAWING).batch
                given.add(("sample", batch.checkpoint_sha256, batch.tensor.data))
                codes = stub.InferCodes(inferring)
                given.add(("codes", codes.checkpoint_sha256, codes.style_std.data))
        return given

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        try:
            under_way.wait(LIMIT)
            for version in ("second", "third"):
                put(tmp_path, version)
                assert f"tiny-images is now served of the checkpoint {checkpoint(version)[:12]}" in server.hang_up()
                # From the line on, no reply is of the old version.
                assert server.checkpoint() == checkpoint(version)
                assert server.stub.Sample(DRAWING).batch.checkpoint_sha256 == checkpoint(version)
        finally:
            ended.set()
        given = set.union(*(one.result(LIMIT) for one in loads))
    versions = {checkpoint(version) for version in ("first", "second", "third")}
    # Each version gave one answer to each question, and never another's.
    assert {one[:2] for one in given} == {(kind, version) for kind in ("sample", "codes") for version in versions}
    assert len({one[2] for one in given}) == len(given) == 6
    server.ends_well()


def test_a_stream_stays_with_the_version_it_began_with(watched: Callable, put: Callable, tmp_path: Path) -> None:
    put(tmp_path, "first")
    server = watched("--model", tmp_path / "gen.onnx")
    last = Draw(count=64, seed=1, first_index=STREAMED - 64)
    expected = server.stub.Sample(SampleRequest(draw=last, encoding=ENCODING_FLOAT32)).batch.tensor.data
    request = StreamSamplesRequest(draw=Draw(count=STREAMED, seed=1), encoding=ENCODING_FLOAT32)
    stream = server.stub.StreamSamples(request)
    batches = [next(stream).batch]
    put(tmp_path, "second")
    assert "is now served" in server.hang_up()
    assert server.checkpoint() == checkpoint("second")
    batches += [reply.batch for reply in stream]
    assert {batch.checkpoint_sha256 for batch in batches} == {checkpoint("first")}
    assert sum(len(batch.categories) for batch in batches) == STREAMED
    assert b"".join(batch.tensor.data for batch in batches[-2:])[-len(expected) :] == expected
    server.ends_well()


def test_what_is_broken_leaves_the_old_serving(
    watched: Callable, put: Callable, tmp_path: Path, schema_1: Path, with_metadata: Callable
) -> None:
    put(tmp_path, "first")
    generator, encoder = tmp_path / "gen.onnx", tmp_path / "q.onnx"
    server = watched("--model", generator, "--metrics-port", "0")
    before = server.stub.Sample(DRAWING).batch
    whole = generator.read_bytes()

    def edited(edit: Callable[[onnx.ModelProto], None]) -> bytes:
        model = onnx.load_from_string(whole)
        edit(model)
        return model.SerializeToString()

    for content, words in [
        (whole[: len(whole) // 2], "is not a model onnxruntime"),
        (os.urandom(4096), "is not a model onnxruntime"),
        (edited(lambda model: model.ClearField("metadata_props")), "without infosink's metadata"),
        (edited(with_metadata(schema_version="2")), "newer than 1"),
        (edited(with_metadata(checkpoint_sha256=checkpoint("other"))), "is of another checkpoint"),
        (encoder.read_bytes(), "is the encoder of a model"),
    ]:
        generator.write_bytes(content)
        line = server.hang_up()
        assert line.startswith("infosink-serve: ERROR: tiny-images stays as it is: ")
        assert words in line
        assert server.stub.Sample(DRAWING).batch == before
        assert server.status("tiny-images") == HealthCheckResponse.SERVING
    generator.unlink()
    assert f"{generator} does not exist" in server.hang_up()
    generator.write_bytes(whole)
    encoder.unlink()
    assert "has lost its encoder" in server.hang_up()
    assert server.stub.InferCodes(InferCodesRequest(tensor=before.tensor)).checkpoint_sha256 == checkpoint("first")
    put(tmp_path, "first")
    assert "no model has changed" in server.hang_up()
    assert server.reloads() == {("tiny-images", "failed"): 8}
    put(tmp_path, "second")
    assert "is now served" in server.hang_up()
    assert server.reloads() == {("tiny-images", "failed"): 8, ("tiny-images", "renewed"): 1}
    server.ends_well()


def test_a_changed_file_is_seen(watched: Callable, put: Callable, tmp_path: Path) -> None:
    put(tmp_path, "first")
    server = watched("--model", tmp_path / "gen.onnx", "--watch", "0.1")
    put(tmp_path, "second")
    assert "is now served" in server.says()
    assert server.checkpoint() == checkpoint("second")
    (tmp_path / "gen.onnx").write_bytes(b"broken")
    # Said once: the next line is of the next change.
    assert "tiny-images stays as it is" in server.says()
    put(tmp_path, "third")
    assert "is now served" in server.says()
    server.ends_well()


def test_a_folder_is_followed(watched: Callable, put: Callable, tmp_path: Path, schema_1: Path) -> None:
    put(tmp_path, "first", "digits-")
    put(tmp_path, "first", "letters-")
    shutil.copy(schema_1 / "gen.onnx", tmp_path / "oxygen.onnx")
    server = watched("--model", tmp_path)
    assert server.names() == ["digits", "letters"]
    watch = server.health.Watch(HealthCheckRequest(service="added"))
    assert next(watch).status == HealthCheckResponse.SERVICE_UNKNOWN
    put(tmp_path, "second", "added-")
    assert "added is now served" in server.hang_up()
    assert next(watch).status == HealthCheckResponse.SERVING
    # The default stays what it was, whatever comes before it.
    assert server.names() == ["digits", "letters", "added"]
    assert server.checkpoint("added") == checkpoint("second")
    stream = server.stub.StreamSamples(
        StreamSamplesRequest(model="added", draw=Draw(count=STREAMED), encoding=ENCODING_FLOAT32)
    )
    next(stream)
    (tmp_path / "added-gen.onnx").unlink()
    assert "no longer served: added" in server.hang_up()
    assert next(watch).status == HealthCheckResponse.SERVICE_UNKNOWN
    assert server.names() == ["digits", "letters"]
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sample(SampleRequest(model="added", draw=Draw(count=1)))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert sum(len(reply.batch.categories) for reply in stream) > STREAMED - 100
    watch.cancel()
    (tmp_path / "digits-gen.onnx").unlink()
    assert "digits stays, as the default model" in server.hang_up()
    assert server.names() == ["digits", "letters"]
    server.ends_well()


def test_a_folder_that_has_gone_changes_nothing(watched: Callable, put: Callable, tmp_path: Path) -> None:
    put(tmp_path / "models", "first", "digits-")
    put(tmp_path / "models", "first", "letters-")
    server = watched("--model", tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    assert "the models stay as they are" in server.hang_up()
    assert server.names() == ["digits", "letters"]
    (tmp_path / "elsewhere").rename(tmp_path / "models")
    put(tmp_path / "models", "second", "letters-")
    assert "letters is now served" in server.hang_up()
    server.ends_well()


def test_a_newcomer_that_cannot_be_served_keeps_nothing_else_from_changing(
    watched: Callable, serve: Callable, put: Callable, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, "first", "digits-")
    put(second, "first", "letters-")
    server = watched("--model", first, "--model", second)
    (first / "added-gen.onnx").write_bytes(b"broken")
    put(second, "second", "digits-")
    put(second, "second", "letters-")
    assert "added is not served" in server.hang_up()
    assert "digits is not served: two models are named digits" in server.says()
    assert "letters is now served" in server.says()
    assert [server.checkpoint(name) for name in server.names()] == [checkpoint("first"), checkpoint("second")]
    server.ends_well()
    (first / "added-gen.onnx").unlink()
    code, _, err = serve("--model", first, "--model", second, "--port", "0").end()
    assert code == 1
    assert "two models are named digits" in err


def test_the_server_is_healthy_while_it_loads(watched: Callable, with_metadata: Callable, tmp_path: Path) -> None:
    """With a model that takes as long to load as those that people serve."""
    for name in ("mnist-gen.onnx", "mnist-q.onnx"):
        shutil.copy(Path(shipped.__file__).with_name("released") / name, tmp_path)
    server = watched("--model", tmp_path, "--log-level", "debug")
    server.hears("loading")
    for path in tmp_path.iterdir():
        model = onnx.load(path)
        with_metadata(checkpoint_sha256=checkpoint("second"))(model)
        onnx.save(model, path)
    server.process.signal(signal.SIGHUP)
    # The check in another process is over, and the server itself loads.
    server.hears("loading")
    statuses = []
    with ThreadPoolExecutor(1) as pool:
        line = pool.submit(server.hears, "mnist is now served")
        while not line.done():
            statuses.append(server.status("mnist"))
    line.result()
    assert set(statuses) == {HealthCheckResponse.SERVING}
    # Were it to wait for the load, one would be all that is answered before the line.
    assert len(statuses) >= 4
    server.process.signal(signal.SIGTERM)
    assert server.process.end()[0] == 0


def test_to_drain_ends_a_reload_under_way(watched: Callable, put: Callable, tmp_path: Path) -> None:
    put(tmp_path, "first")
    server = watched("--model", tmp_path / "gen.onnx")
    put(tmp_path, "second")
    server.process.signal(signal.SIGHUP)
    server.ends_well()


def test_a_change_counts_when_it_has_come_to_rest() -> None:
    settling = Settling("a")
    looks = ["a", "a", "b", "c", "c", "c", "a", "c", "c", "a", "a", "a"]
    told = [settling.has_changed(look) for look in looks]
    assert [look for look, changed in zip(looks, told, strict=True) if changed] == ["c", "a"]
    assert told.index(True) == 4


class Reloading:
    """A reloader in this process, of one model that is served already."""

    def __init__(self, generator: Path, load: Callable[..., ServedModel], log: pytest.LogCaptureFixture) -> None:
        log.set_level(logging.INFO)
        self.log = log
        self.generator = generator
        self.registry = Registry([load(generator)])
        self.counts: list[tuple[str, bool]] = []

    def find(self) -> list[ModelSource]:
        return find_models([(None, self.generator)])

    def run(self, use: Callable, **parts: Callable) -> None:
        """Has `use` ask the reloader for reloads, and ends it then."""

        async def running() -> None:
            reloader = Reloader(
                self.registry,
                dict.fromkeys(self.find(), "tiny-images"),
                **{
                    "find": self.find,
                    "device": "cpu",
                    "changed": lambda: None,
                    "counted": lambda model, served: self.counts.append((model, served)),
                }
                | parts,
            )
            task = asyncio.create_task(reloader.run(None))
            async with asyncio.timeout(LIMIT):
                await use(reloader)
            task.cancel()

        asyncio.run(running())

    async def says(self, words: str, times: int = 1) -> None:
        while sum(words in message for message in self.log.messages) < times:
            await asyncio.sleep(0.01)


def test_what_is_asked_for_while_it_reloads_is_done_once(
    put: Callable, load_file: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "first")
    reloading = Reloading(tmp_path / "gen.onnx", load_file, caplog)
    looking, go_on = threading.Event(), threading.Event()
    looks = []

    def find() -> list[ModelSource]:
        looks.append(None)
        looking.set()
        assert go_on.wait(LIMIT)
        return reloading.find()

    async def use(reloader: Reloader) -> None:
        reloader.request()
        await asyncio.to_thread(looking.wait, LIMIT)
        for _ in range(3):
            reloader.request()
        go_on.set()
        await reloading.says("no model has changed", times=2)
        for _ in range(100):
            await asyncio.sleep(0)

    reloading.run(use, find=find, load=load_file)
    assert len(looks) == 2


@pytest.mark.parametrize("replacements", [1, 2])
def test_what_is_served_is_what_was_checked(
    put: Callable, load_file: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture, replacements: int
) -> None:
    put(tmp_path, "first")
    reloading = Reloading(tmp_path / "gen.onnx", load_file, caplog)
    put(tmp_path, "second")
    versions = [f"late {number}" for number in range(replacements)]

    def load(source: ModelSource, name: str | None) -> ServedModel:
        if versions:
            put(tmp_path, versions.pop())
        return load_file(source.generator, name=name)

    async def use(reloader: Reloader) -> None:
        reloader.request()
        await reloading.says("is now served" if replacements == 1 else "changed while it was loaded")

    reloading.run(use, load=load)
    served = reloading.registry.get("").checkpoint_sha256
    assert served == checkpoint("late 0" if replacements == 1 else "first")
    assert reloading.counts == [("tiny-images", replacements == 1)]


def test_what_is_broken_never_reaches_the_server(
    put: Callable, load_file: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "first")
    reloading = Reloading(tmp_path / "gen.onnx", load_file, caplog)
    (tmp_path / "gen.onnx").write_bytes(b"broken")
    loaded = []

    async def use(reloader: Reloader) -> None:
        reloader.request()
        await reloading.says("tiny-images stays as it is")

    reloading.run(use, load=lambda *source_and_name: loaded.append(source_and_name))
    assert loaded == []
    assert reloading.counts == [("tiny-images", False)]


@pytest.mark.parametrize(
    ("does", "end"), [("kill -SEGV $$", "SIGSEGV"), ("kill -ALRM $$", "took more than 300 seconds"), ("exit 1", "1")]
)
def test_a_check_that_ends_without_a_verdict_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, end: str
) -> None:
    interpreter(tmp_path, monkeypatch, does)
    with pytest.raises(StartupError, match=f"gen.onnx cannot be served: its check .*{end}"):
        asyncio.run(validate(tmp_path / "gen.onnx", None, "cpu"))


def test_a_check_ends_with_who_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)
    interpreter(tmp_path, monkeypatch, f"echo $$ > {said}; exec sleep {LIMIT}")

    async def leave() -> int:
        checking = asyncio.create_task(validate(tmp_path / "gen.onnx", None, "cpu"))
        number = int(await asyncio.to_thread(said.read_text))
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        return number

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(leave()), 0)


def interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Has new processes of this one do something else."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(path))
