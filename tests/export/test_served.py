"""Exported files in a real server."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from infosink.export.content_digest import serialised
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel, export_model
from infosink.export.meanings import plain_meanings
from infosink.export.metadata import check_labels, check_name, latent_space_message, metadata
from infosink.serving.errors import StartupError
from infosink.serving.models.model_file import describe
from infosink.serving.models.served_model import load_model
from infosink.training.code_distribution import make_code_distribution
from infosink.training.trained_model import TrainedModel
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    Noise,
    SampleRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from onnx import helper

COMMAND = Path(sys.executable).with_name("infosink-serve")
LIMIT = 60


@pytest.fixture(scope="module")
def stub(gaussians_files: ExportedModel, mnist_files: ExportedModel) -> Iterator[SamplingServiceStub]:
    """infosink-serve with both models, in a process of its own."""
    models = [f"--model={files.generator_path}" for files in (mnist_files, gaussians_files)]
    process = subprocess.Popen(
        [COMMAND, *models, "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert " on " in ready, process.communicate(timeout=LIMIT)[1]
        assert "mnist (10 categories, 2 styles, codes inferred)" in ready
        assert "dots (25 categories, 0 styles, codes inferred)" in ready
        with grpc.insecure_channel(ready.split(" on ")[1].split(",")[0]) as channel:
            yield SamplingServiceStub(channel)
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT)


def test_the_server_reads_the_description(stub: SamplingServiceStub, mnist: TrainedModel) -> None:
    served = stub.GetModel(GetModelRequest(model="mnist"), timeout=LIMIT).served_model
    assert served.infers_codes
    assert served.model.data_set == "mnist"
    assert served.model.checkpoint_sha256 == mnist.checkpoint_sha256
    assert [category.label for category in served.model.latent_space.categories] == [*"987654321", ""]
    assert served.model.sample_space.image.padding_left == 2


@pytest.mark.parametrize("name", ["mnist", "dots"])
def test_the_server_draws_what_torch_draws(
    stub: SamplingServiceStub, mnist: TrainedModel, gaussians: TrainedModel, name: str
) -> None:
    model = {"mnist": mnist, "dots": gaussians}[name]
    latent_space = model.configuration.latent_space
    style = [0.5, -0.25][: latent_space.styles]
    noise = np.linspace(-2, 2, 3 * latent_space.noise, dtype=np.float32).reshape(3, -1)
    draw = Draw(count=3, codes=[Code(category=4, style=style)], noise=Noise(values=tensor(noise)))
    request = SampleRequest(model=name, draw=draw, encoding=ENCODING_FLOAT32)
    batch = stub.Sample(request, timeout=LIMIT).batch
    z = latent_space.assemble(torch.full((3,), 4), torch.tensor([style] * 3), torch.from_numpy(noise))
    expected = model.networks.sampling_generator(z).numpy()
    np.testing.assert_allclose(array(batch.tensor), expected, rtol=0, atol=1e-5)


def test_the_server_infers_what_torch_infers(stub: SamplingServiceStub, gaussians: TrainedModel) -> None:
    samples = gaussians.dataset.draw(9, torch.Generator().manual_seed(2))
    response = stub.InferCodes(InferCodesRequest(model="dots", tensor=tensor(samples.numpy())), timeout=LIMIT)
    networks = gaussians.networks
    expected = make_code_distribution(gaussians.configuration).posterior(networks.code_head(networks.trunk(samples)))
    probability = expected.category_probability.numpy()
    np.testing.assert_allclose(array(response.category_probability), probability, rtol=0, atol=1e-5)
    assert list(response.categories) == probability.argmax(1).tolist()


def test_export_and_server_agree_on_the_longest_name_and_label(
    gaussians: TrainedModel, gaussians_files: ExportedModel, tmp_path: Path
) -> None:
    def labelled(label: str) -> TrainedModel:
        first, *others = gaussians.categories
        return dataclasses.replace(gaussians, categories=[dataclasses.replace(first, label=label), *others])

    label, name = "ü" * 64, "n" * 64
    check_name(name)
    check_labels(labelled(label).categories)
    generator = onnx.load(gaussians_files.generator_path)
    helper.set_model_props(generator, described(labelled(label), name))
    (tmp_path / "gen.onnx").write_bytes(serialised(generator))
    served = load_model(
        tmp_path / "gen.onnx", name=None, encoder_path=None, device="cpu", threads=1, stream_samples=1000
    )
    assert (served.name, served.labels[0]) == (name, label)
    for model, longer in ((labelled(label + "x"), name), (labelled(label), name + "n")):
        with pytest.raises(ExportError):
            export_model(model, tmp_path, name=longer)
        with pytest.raises(StartupError, match=r"its name|a label is longer"):
            describe(described(model, longer), tmp_path)


def described(model: TrainedModel, name: str) -> dict[str, str]:
    latent_space = latent_space_message(model, plain_meanings(model))
    return metadata(model, latent_space, "generator", name=name, licence="", parity_json="{}")


def tensor(values: npt.NDArray[np.float32]) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=values.shape, data=values.astype("<f4").tobytes())


def array(message: Tensor) -> npt.NDArray[np.float32]:
    return np.frombuffer(message.data, "<f4").reshape(message.shape)
