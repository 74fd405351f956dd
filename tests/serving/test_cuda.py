"""Serving on a CUDA device."""

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from infosink.v1.sampling_service_pb2 import ENCODING_FLOAT32, Draw, GetModelRequest, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

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
