"""Small trained models and the files exported from them."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from infosink.export.card import read_origin
from infosink.export.export import ExportedModel, export_model
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.datasets.images import LabelledPixels
from infosink.training.labelling import NamedCategory
from infosink.training.networks import Networks, inference_copy
from infosink.training.run_directory import RunDirectory
from infosink.training.trained_model import TrainedModel, load_trained_model
from infosink.training.trainer import Schedule, Trainer, make_networks

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Array = npt.NDArray[Any]


class Silent:
    def iterated(self, iteration: int) -> None: ...

    def logged(self, record: dict[str, Any]) -> None: ...

    def forecast(self, seconds_per_iteration: float) -> None: ...


@pytest.fixture(scope="session")
def train_on_gaussians(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a run on the 25 Gaussians with the given settings."""

    def train(**changes: Any) -> Path:
        path = tmp_path_factory.mktemp("runs") / "gaussians"
        settings = preset_configuration("gaussians", "quick", **changes)
        run, dataset = RunDirectory.create(path), open_dataset("gaussians")
        options = {"data_directory": None, "sigma": None, "channels": None}
        data = {"options": options, "facts": dataset.describe()}
        run.write_configuration(settings, data, {"torch": torch.__version__, "threads": 1})
        Trainer(run, settings, dataset, torch.device("cpu")).train(Schedule(), Silent(), lambda: False)
        return path

    return train


@pytest.fixture(scope="session")
def gaussians_run(train_on_gaussians: Callable[..., Path]) -> Path:
    """A run with an averaged generator; no style codes."""
    return train_on_gaussians(iterations=3, batch_size=64, averaging=0.9)


@pytest.fixture(scope="session")
def gaussians(gaussians_run: Path) -> TrainedModel:
    return load_trained_model(RunDirectory.open(gaussians_run))


@pytest.fixture(scope="session")
def mnist_as_trained(mnist_directory: Path) -> tuple[Networks, TrainedModel]:
    """Networks as training leaves them, and the model made of them: two styles, images of the first 512 digits.

    The last category has no label, as one to which Q assigns no sample.
    """
    settings = preset_configuration("mnist", "paper", iterations=1, batch_size=8, dual_steps=1)
    dataset = open_dataset("mnist", data_directory=mnist_directory)
    pixels, labels = dataset.training
    dataset = dataclasses.replace(dataset, training=LabelledPixels(pixels[:512], labels[:512]))
    torch.manual_seed(settings.seed)
    as_trained = make_networks(settings, dataset.sample_shape)
    algorithm = InformativeSinkhorn(as_trained, dataset, settings)
    random = torch.Generator().manual_seed(settings.seed)
    algorithm.iterate(1, random)
    latent_space = settings.latent_space
    networks = inference_copy(
        as_trained,
        samples=(dataset.draw(256, random) for _ in range(2)),
        latents=(latent_space.draw(256, random) for _ in range(2)),
    )
    named = [NamedCategory(str(9 - k), 0.9, 1 / 9, 0.01 * k) for k in range(settings.categories - 1)]
    categories = [*named, NamedCategory("", 0.0, 0.0, 0.5)]
    model = TrainedModel(settings, dataset, networks, categories, checkpoint_sha256="5e" * 32, iteration=1)
    return as_trained, model


@pytest.fixture(scope="session")
def mnist(mnist_as_trained: tuple[Networks, TrainedModel]) -> TrainedModel:
    return mnist_as_trained[1]


@pytest.fixture(scope="session")
def gaussians_files(
    gaussians: TrainedModel, gaussians_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExportedModel:
    origin = read_origin(RunDirectory.open(gaussians_run), gaussians.iteration)
    directory = tmp_path_factory.mktemp("gaussians")
    return export_model(gaussians, directory, name="dots", licence="MIT", origin=origin)


@pytest.fixture(scope="session")
def mnist_files(mnist: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return export_model(mnist, tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="session", params=["gaussians", "mnist"])
def model_and_files(request: pytest.FixtureRequest) -> tuple[TrainedModel, ExportedModel]:
    """Each model with its files."""
    return request.getfixturevalue(request.param), request.getfixturevalue(f"{request.param}_files")


@pytest.fixture(scope="session")
def states_its_content() -> Callable[[Path], bool]:
    """Whether a model file's metadata has the SHA-256 of the file with that value's digits as zeros."""

    def check(path: Path) -> bool:
        content = path.read_bytes()
        (stated,) = re.findall(rb"\n\x17infosink\.content_sha256\x12@([0-9a-f]{64})", content)
        assert content.count(stated) == 1
        return hashlib.sha256(content.replace(stated, b"0" * 64)).hexdigest() == stated.decode()

    return check


@pytest.fixture(scope="session")
def session() -> Callable[[Path | bytes], onnxruntime.InferenceSession]:
    """Opens a model file in onnxruntime on the CPU."""

    def start(model: Path | bytes) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    return start


@pytest.fixture(scope="session")
def run(session: Callable[[Path | bytes], onnxruntime.InferenceSession]) -> Callable[..., dict[str, Array]]:
    """Runs a model file once and returns its outputs by name."""

    def call(model: Path | bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
        opened = session(model)
        names = [output.name for output in opened.get_outputs()]
        return dict(zip(names, opened.run(names, dict(inputs)), strict=True))

    return call


@pytest.fixture(scope="session")
def latents() -> Callable[[TrainedModel, int], dict[str, Array]]:
    """Draws inputs of gen.onnx."""

    def draw(model: TrainedModel, count: int) -> dict[str, Array]:
        settings, random = model.configuration, np.random.default_rng(1)
        return {
            "category": random.integers(settings.categories, size=count),
            "style": random.uniform(-1, 1, (count, settings.styles)).astype(np.float32),
            "noise": random.standard_normal((count, settings.noise)).astype(np.float32),
        }

    return draw
