"""Serving on a CUDA device."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from infosink.serving.runtime.session import Array, Session, TerminatedError, Termination
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    SampleRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import Tensor

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("file", ["gen.onnx", "points-gen.onnx"])
def test_cuda_takes_effect_and_gives_what_the_cpu_gives(serve: Callable, schema_1: Path, file: str) -> None:
    samples = []
    for device, provider in (("cpu", "CPUExecutionProvider"), ("cuda", "CUDAExecutionProvider")):
        process = serve("--model", schema_1 / file, "--port", "0", "--device", device)
        with grpc.insecure_channel(process.ready()) as channel:
            stub = SamplingServiceStub(channel)
            assert stub.GetModel(GetModelRequest()).served_model.execution_provider == provider
            request = SampleRequest(draw=Draw(count=200, seed=1), encoding=ENCODING_FLOAT32)
            samples.append(np.frombuffer(stub.Sample(request).batch.tensor.data, "<f4"))
    np.testing.assert_allclose(samples[0], samples[1], atol=1e-5)


@pytest.mark.parametrize("file", ["gen.onnx", "points-gen.onnx"])
def test_a_row_does_not_depend_on_its_batch(serve: Callable, schema_1: Path, file: str) -> None:
    process = serve("--model", schema_1 / file, "--port", "0", "--device", "cuda")
    with grpc.insecure_channel(process.ready()) as channel:
        stub = SamplingServiceStub(channel)
        whole = stub.Sample(SampleRequest(draw=Draw(count=64, seed=1), encoding=ENCODING_FLOAT32)).batch.tensor
        inferred = stub.InferCodes(InferCodesRequest(tensor=whole))
        for row in range(64):
            draw = Draw(count=1, seed=1, first_index=row)
            alone = stub.Sample(SampleRequest(draw=draw, encoding=ENCODING_FLOAT32)).batch.tensor
            assert alone.data == row_of(whole, row)
            reply = stub.InferCodes(InferCodesRequest(tensor=alone))
            assert reply.category_probability.data == row_of(inferred.category_probability, row)
            assert reply.style_mean.data == row_of(inferred.style_mean, row)
            assert reply.style_std.data == row_of(inferred.style_std, row)


@pytest.fixture
def feeds() -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        "category": random.integers(0, 2, 64),
        "style": random.uniform(-1, 1, (64, 2)).astype(np.float32),
        "noise": random.normal(size=(64, 3)).astype(np.float32),
    }


@pytest.mark.parametrize("graphs", [False, True])
def test_every_batch_size_gives_a_row_the_same_bytes(schema_1: Path, feeds: dict[str, Array], graphs: bool) -> None:
    path = schema_1 / "gen.onnx"
    session = Session(path.read_bytes(), path, "cuda", 1, cuda_graphs=graphs)
    session.settle(feeds)
    assert session._padded.graphs is graphs
    names = ["sample", "pixels"]
    whole = session.run(feeds, names)
    on_cpu = Session(path.read_bytes(), path, "cpu", 1).run(feeds, names)
    np.testing.assert_allclose(whole[0], on_cpu[0], atol=1e-5)
    for rows in (1, 2, 3, 8, 31, 33, 64):
        # From threads of their own, as a server's calls may come.
        with ThreadPoolExecutor(1) as other:
            run = other.submit(session.run, {name: array[-rows:] for name, array in feeds.items()}, names)
            for found, expected in zip(run.result(), whole, strict=True):
                assert found.tobytes() == expected[-rows:].tobytes()


def test_graphs_give_what_the_model_gives_without_them(schema_1: Path, feeds: dict[str, Array]) -> None:
    path = schema_1 / "gen.onnx"
    found = []
    for graphs in (False, True):
        session = Session(path.read_bytes(), path, "cuda", 1, cuda_graphs=graphs)
        session.settle(feeds)
        turned = {name: np.roll(array, 5, axis=0) for name, array in feeds.items()}
        found.append([session.run(given, ["sample"])[0].tobytes() for given in (feeds, turned, feeds)])
    assert found[0] == found[1]
    assert found[0][0] == found[0][2] != found[0][1]


def test_a_run_on_the_device_is_ended(schema_1: Path, feeds: dict[str, Array]) -> None:
    path = schema_1 / "gen.onnx"
    session = Session(path.read_bytes(), path, "cuda", 1)
    termination = Termination()
    termination.terminate()
    with pytest.raises(TerminatedError):
        session.run(feeds, ["sample"], termination)
    assert np.isfinite(session.run(feeds, ["sample"], Termination())[0]).all()


def row_of(tensor: Tensor, row: int) -> bytes:
    size = len(tensor.data) // tensor.shape[0]
    return tensor.data[row * size : (row + 1) * size]
