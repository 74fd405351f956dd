"""Serving on a CUDA device."""

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
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


def row_of(tensor: Tensor, row: int) -> bytes:
    size = len(tensor.data) // tensor.shape[0]
    return tensor.data[row * size : (row + 1) * size]
