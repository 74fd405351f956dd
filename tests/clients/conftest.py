"""A real server of the committed model files, one that gets things wrong, and the command as people run it."""

import re
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result
from infosink.clients import Client
from infosink.clients.command import main
from infosink.clients.wire import to_tensor
from infosink.v1 import model_pb2, sampling_service_pb2_grpc
from infosink.v1 import sampling_service_pb2 as v1

SCHEMA_1 = Path(__file__).parents[1] / "compatibility" / "schema-1"
SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of two models: "images", which it means by default, and "points"."""
    arguments = ["--model", f"images={SCHEMA_1 / 'gen.onnx'}", "--model", f"points={SCHEMA_1 / 'points-gen.onnx'}"]
    command = [SCRIPTS / "infosink-serve", *arguments, "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # A server that never gets ready ends the wait by its end.
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            watchdog.cancel()
            address = re.search(r" on (\S+:\d+)", ready)
            assert address, f"no address in the ready line {ready!r}"
            yield address[1]
        finally:
            watchdog.cancel()
            process.terminate()
            process.communicate(timeout=60)


class Careless(sampling_service_pb2_grpc.SamplingServiceServicer):
    """Black images, or points at the origin, of one style; right but for what it is told to get wrong.

    Args:
        describe: Changes the description of the model.
        spoil: Changes each batch of samples.
        spoil_codes: Changes inferred codes.
        batches: How many streamed batches answer a request for one.
        fail: A status and its details, for every call but those for descriptions.
        refuse: Sees each call but those for descriptions, before each batch of samples, and may abort it.
        card: The model's card.
    """

    def __init__(
        self,
        describe: Callable[[v1.ServedModel], object] = lambda _: None,
        spoil: Callable[[v1.SampleBatch], object] = lambda _: None,
        spoil_codes: Callable[[v1.InferCodesResponse], object] = lambda _: None,
        batches: Callable[[], Iterator[object]] = lambda: iter([None]),
        fail: tuple[grpc.StatusCode, str] | None = None,
        refuse: Callable[[object, grpc.ServicerContext], object] = lambda request, context: None,
        card: str = "",
    ) -> None:
        image = model_pb2.ImageSpace(
            channels=1, height=8, width=8, padding_top=1, padding_left=1, padding_bottom=1, padding_right=1
        )
        model = model_pb2.Model(
            name="m",
            latent_space=model_pb2.LatentSpace(
                categories=[model_pb2.Category(label="0"), model_pb2.Category(label="1")],
                styles=[model_pb2.Style(name="style 1")],
            ),
            sample_space=model_pb2.SampleSpace(image=image),
            checkpoint_sha256="0" * 64,
        )
        limits = v1.Limits(
            unary_uint8_samples=10_000,
            unary_float32_samples=10_000,
            stream_samples=10_000,
            codes=20_000,
            inferred_samples=100,
        )
        self.served = v1.ServedModel(model=model, limits=limits, infers_codes=True)
        describe(self.served)
        self.spoil, self.spoil_codes, self.batches, self.fail = spoil, spoil_codes, batches, fail
        self.refuse = refuse
        self.card = card

    def ListModels(self, request, context):  # noqa: N802
        return v1.ListModelsResponse(served_models=[self.served])

    def GetModel(self, request, context):  # noqa: N802
        return v1.GetModelResponse(served_model=self.served, card=self.card)

    def Sample(self, request, context):  # noqa: N802
        self.refuse(request, context)
        return v1.SampleResponse(batch=self._batch(request.draw, context))

    def StreamSamples(self, request, context):  # noqa: N802
        for _ in self.batches():
            if not context.is_active():
                return
            self.refuse(request, context)
            batch = self._batch(request.draw, context)
            yield v1.StreamSamplesResponse(batch=batch)
            request.draw.first_index += len(batch.categories)

    def InferCodes(self, request, context):  # noqa: N802
        space = self.served.model.latent_space
        self.refuse(request, context)
        samples = request.tensor.shape[0]
        reply = v1.InferCodesResponse(
            model="m",
            checkpoint_sha256=self.served.model.checkpoint_sha256,
            categories=[0] * samples,
            labels=[space.categories[0].label] * samples,
            category_probability=to_tensor(np.full((samples, len(space.categories)), 1 / len(space.categories))),
            style_mean=to_tensor(np.zeros((samples, len(space.styles)))),
            style_std=to_tensor(np.ones((samples, len(space.styles)))),
        )
        self.spoil_codes(reply)
        return reply

    def _batch(self, draw: v1.Draw, context: grpc.ServicerContext) -> v1.SampleBatch:
        if self.fail:
            context.abort(*self.fail)
        model = self.served.model
        codes = draw.codes or [v1.Code()]
        categories = [codes[(draw.first_index + i) % len(codes)].category for i in range(draw.count)]
        image = model.sample_space.image
        samples = (
            np.zeros((draw.count, model.sample_space.point.dimensions), np.float32)
            if model.sample_space.HasField("point")
            else np.zeros((draw.count, image.height, image.width, image.channels), np.uint8)
        )
        batch = v1.SampleBatch(
            model="m",
            checkpoint_sha256=model.checkpoint_sha256,
            seed=draw.seed,
            first_index=draw.first_index,
            categories=categories,
            labels=[model.latent_space.categories[category].label for category in categories],
            style=to_tensor(np.zeros((draw.count, len(model.latent_space.styles)))),
            tensor=to_tensor(samples),
        )
        if draw.noise.HasField("shared_index"):
            batch.shared_noise_index = draw.noise.shared_index
        elif draw.noise.HasField("values"):
            batch.noise_given = True
        self.spoil(batch)
        return batch


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[grpc.Server], object]], str]]:
    """Starts a server in this process, to which its argument adds services, and returns the address."""
    with ExitStack() as stack:

        def serve(add: Callable[[grpc.Server], object]) -> str:
            server = grpc.server(ThreadPoolExecutor(2))
            add(server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(grace=None).wait())
            return f"127.0.0.1:{port}"

        yield serve


@pytest.fixture
def careless(serve: Callable[[Callable[[grpc.Server], object]], str]) -> Callable[..., str]:
    """Starts a `Careless` server with the arguments given, and returns the address."""

    def careless(**arguments: object) -> str:
        service = Careless(**arguments)
        return serve(lambda server: sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(service, server))

    return careless


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that refuses connections: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Path:
    """An empty folder to work in, with the server in INFOSINK_SERVER."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFOSINK_SERVER", server)
    return tmp_path


@pytest.fixture
def infosink(folder: Path) -> Callable[..., Result]:
    """Runs `infosink` in the folder, within this process."""
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture
def process(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `infosink` in the folder, as a process of its own; the other options are `subprocess.run`'s."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return lambda *arguments, **options: subprocess.run(
        [SCRIPTS / "infosink", *arguments], **{**streams, **options}, text=True, timeout=60, check=False
    )
