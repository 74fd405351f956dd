"""The committed files of schema version 1 are served as they were meant."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import grpc
import numpy as np
import onnx
import pytest
from infosink.serving.models.served_model import load_model
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

SCHEMA_1 = Path(__file__).parent / "schema-1"
FILES = ["gen.onnx", "q.onnx", "points-gen.onnx", "points-q.onnx"]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    path = Path(__file__).parent / "make_schema_1.py"
    spec = importlib.util.spec_from_file_location("make_schema_1", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_making_the_files_again_gives_the_same_bytes(maker: ModuleType, tmp_path: Path) -> None:
    maker.make_schema_1(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (SCHEMA_1 / name).read_bytes()


@pytest.mark.parametrize(("prefix", "name"), [("", "tiny-images"), ("points-", "tiny-points")])
def test_samples_are_what_the_weights_say(start_server: Callable, prefix: str, name: str) -> None:
    model = load_model(
        SCHEMA_1 / f"{prefix}gen.onnx", name=None, encoder_path=None, device="cpu", threads=1, stream_samples=100
    )
    with grpc.insecure_channel(start_server(model).address) as channel:
        stub = SamplingServiceStub(channel)
        served = stub.GetModel(GetModelRequest()).served_model
        assert served.model.name == name
        assert served.infers_codes
        latents = served.model.latent_space
        styles, noise_dimensions = len(latents.styles), latents.noise_dimensions
        rng = np.random.default_rng(0)
        category = rng.integers(0, len(latents.categories), 20)
        style = rng.uniform(-1, 1, (20, styles)).astype("<f4")
        noise = rng.normal(size=(20, noise_dimensions)).astype("<f4")
        codes = [Code(category=int(k), style=s) for k, s in zip(category, style, strict=True)]
        values = Tensor(data_type=DATA_TYPE_FLOAT32, shape=noise.shape, data=noise.tobytes())
        draw = Draw(count=20, codes=codes, noise=Noise(values=values))
        batch = stub.Sample(SampleRequest(draw=draw, encoding=ENCODING_FLOAT32)).batch
        inferred = stub.InferCodes(InferCodesRequest(tensor=batch.tensor))

    latent = np.concatenate([np.eye(len(latents.categories))[category], style, noise], axis=1)
    graph = onnx.load(SCHEMA_1 / f"{prefix}gen.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    expected = np.tanh(latent @ constants["weight"] + constants.get("bias", 0)) * constants.get("radius", 1)
    sample = np.frombuffer(batch.tensor.data, "<f4").reshape(20, -1)
    np.testing.assert_allclose(sample, expected, atol=1e-5)
    assert list(batch.categories) == list(inferred.categories) == category.tolist()
    assert list(inferred.labels) == [latents.categories[k].label for k in category]
