"""Deadlines and cancellation over a real socket: nothing is computed that nobody waits for."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from infosink.oip.open_inference_service_pb2 import InferParameter, ModelInferRequest
from infosink.oip.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from infosink.serving.runtime.batching import BatchedSession, QueueBounds
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    InferCodesRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_UINT8, Tensor

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
LIMIT = 60


def sampling(count: int) -> SampleRequest:
    return SampleRequest(draw=Draw(count=count, seed=1))


@pytest.fixture
def held(held_model: Callable) -> Any:
    return held_model()


@pytest.fixture
def server(start_server: Callable, held) -> Iterator[Any]:
    server = start_server(held.model)
    yield server
    held.generator.release()
    held.encoder.release()
    assert server.drain(LIMIT).wait(LIMIT)


def occupy(server, held) -> grpc.Future:
    """Has a request of one sample computed, which does not end before the session is released."""
    held.generator.hold()
    first = server.stub.Sample.future(sampling(1), timeout=LIMIT)
    held.generator.wait_for_run()
    return first


@dataclass(frozen=True)
class Method:
    """A way to have rows computed, and what computes them."""

    call: Callable[[int], grpc.Future]
    session: Any
    """The session held, whose runs are counted."""
    batched: BatchedSession

    def occupy(self) -> grpc.Future:
        """Has one row computed, which does not end before the session is released."""
        self.session.hold()
        first = self.call(1)
        self.session.wait_for_run()
        return first


@pytest.fixture(params=["Sample", "InferCodes", "ModelInfer", "ModelInfer of an encoder"])
def method(request: pytest.FixtureRequest, server, held) -> Method:
    generator, encoder = (held.generator, held.model.generator), (held.encoder, held.model.encoder)
    infer = GRPCInferenceServiceStub(server.channel).ModelInfer.future
    match request.param:
        case "Sample":
            return Method(lambda rows: server.stub.Sample.future(sampling(rows)), *generator)
        case "InferCodes":
            return Method(lambda rows: server.stub.InferCodes.future(inferring(rows)), *encoder)
        case "ModelInfer":
            return Method(lambda rows: infer(generating(rows)), *generator)
        case _:
            return Method(lambda rows: infer(encoding(rows)), *encoder)


def inferring(count: int) -> InferCodesRequest:
    return InferCodesRequest(tensor=Tensor(data_type=DATA_TYPE_UINT8, shape=[count, 8, 8, 1], data=bytes(count * 64)))


def generating(count: int) -> ModelInferRequest:
    return ModelInferRequest(model_name="tiny-images", parameters={"count": InferParameter(int64_param=count)})


def encoding(count: int) -> ModelInferRequest:
    samples = ModelInferRequest.InferInputTensor(name="sample", datatype="FP32", shape=[count, 1, 8, 8])
    return ModelInferRequest(
        model_name="tiny-images-encoder", inputs=[samples], raw_input_contents=[bytes(count * 64 * 4)]
    )


def until(server, condition: Callable[[], bool]) -> None:
    """Asks the server for its health until something has happened in it."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        HealthStub(server.channel).Check(HealthCheckRequest())


def rows_of(runs: list[tuple[int, list[str]]]) -> list[int]:
    return [rows for rows, _ in runs]


def test_what_expires_in_the_queue_is_not_computed(server, held) -> None:
    first = occupy(server, held)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sample(sampling(7), timeout=0.2)
    assert caught.value.code() == DEADLINE_EXCEEDED
    # The server is told its deadlines a little late.
    until(server, lambda: held.model.generator.depth() == 0)
    held.generator.release()
    assert len(first.result().batch.categories) == 1
    assert len(server.stub.Sample(sampling(3)).batch.categories) == 3
    assert rows_of(held.generator.runs) == [1, 3]
    until(server, lambda: (server.server.admission.rows, server.server.admission.size) == (0, 0))


def test_of_a_large_request_no_more_is_computed_than_its_deadline_allows(server, held) -> None:
    first = occupy(server, held)
    with pytest.raises(grpc.RpcError):
        server.stub.Sample(sampling(1000), timeout=0.2)
    until(server, lambda: held.model.generator.depth() == 0)
    held.generator.release()
    first.result()
    server.stub.Sample(sampling(3))
    assert rows_of(held.generator.runs) == [1, 3]


@pytest.mark.parametrize("kind", ["Sample", "StreamSamples", "InferCodes"])
def test_what_cannot_be_done_in_time_is_refused_at_once(start_server: Callable, held, kind: str) -> None:
    # Half a sample a second.
    slow = replace(
        held.model,
        generator=BatchedSession(held.generator, "generator", QueueBounds(), rows_per_second=0.5),
        encoder=BatchedSession(held.encoder, "encoder", QueueBounds(), rows_per_second=0.5),
    )
    stub = start_server(slow).stub
    request: dict[str, Callable[..., Any]] = {
        "Sample": lambda timeout: stub.Sample(sampling(40), timeout=timeout),
        "StreamSamples": lambda timeout: list(
            stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=40)), timeout=timeout)
        ),
        "InferCodes": lambda timeout: stub.InferCodes(inferring(40), timeout=timeout),
    }
    with pytest.raises(grpc.RpcError) as caught:
        request[kind](LIMIT)
    assert caught.value.code() == DEADLINE_EXCEEDED
    assert re.search(r"would take at least (80|7\d\.\d): allow more time, or ask for less", caught.value.details())
    assert held.generator.runs == held.encoder.runs == []
    # Without a deadline nothing is too late, nor is it with one that suffices.
    request[kind](None)
    request[kind](2 * LIMIT)


def test_a_cancelled_request_leaves_the_queue(server, method: Method) -> None:
    first = method.occupy()
    second = method.call(64)
    until(server, lambda: method.batched.depth() == 64)
    second.cancel()
    until(server, lambda: method.batched.depth() == 0)
    method.session.release()
    first.result(LIMIT)
    method.call(3).result(LIMIT)
    assert rows_of(method.session.runs) == [1, 3]
    until(server, lambda: (server.server.admission.rows, server.server.admission.size) == (0, 0))


def test_a_run_that_nobody_waits_for_ends_early(server, method: Method) -> None:
    first = method.occupy()
    first.cancel()
    # It has left what was let in; its run is still held.
    until(server, lambda: server.server.admission.rows == 0)
    method.session.release()
    method.call(3).result(LIMIT)
    assert method.session.terminated == [1]
    assert rows_of(method.session.runs) == [1, 3]


def test_a_request_cancelled_between_chunks_goes_no_further(server, method: Method) -> None:
    method.session.hold()
    large = method.call(1000)
    method.session.wait_for_run()
    method.session.release_one()
    method.session.wait_for_run()
    large.cancel()
    until(server, lambda: server.server.admission.rows == 0)
    method.session.release()
    method.call(3).result(LIMIT)
    assert rows_of(method.session.runs) == [64, 64, 3]
    assert method.session.terminated == [64]


def test_who_stays_is_answered_though_company_leaves(server, method: Method) -> None:
    first = method.occupy()
    leaving, staying = method.call(20), method.call(30)
    until(server, lambda: method.batched.depth() == 50)
    method.session.release_one()
    # Both are in the run that is held now.
    first.result(LIMIT)
    method.session.wait_for_run()
    leaving.cancel()
    until(server, lambda: server.server.admission.rows == 30)
    method.session.release()
    staying.result(LIMIT)
    assert method.session.terminated == []
    assert rows_of(method.session.runs) == [1, 50]


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_stream_ends_with_its_reader(server, held, how: str) -> None:
    request = StreamSamplesRequest(draw=Draw(count=1_000_000, seed=1), encoding=ENCODING_FLOAT32)
    stream = server.stub.StreamSamples(request, timeout=None if how == "cancelled" else 0.5)
    next(stream)
    if how == "cancelled":
        stream.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() == (grpc.StatusCode.CANCELLED if how == "cancelled" else DEADLINE_EXCEEDED)
    until(server, lambda: held.model.generator.depth() == 0)
    server.stub.Sample(sampling(3))
    drawn = len(held.generator.runs)
    server.stub.Sample(sampling(3))
    assert len(held.generator.runs) == drawn + 1 < 1_000_000 / 64
