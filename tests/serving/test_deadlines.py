"""Deadlines and cancellation over a real socket: nothing is computed that nobody waits for."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
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
    images = Tensor(data_type=DATA_TYPE_UINT8, shape=[40, 8, 8, 1], data=bytes(40 * 64))
    request: dict[str, Callable[..., Any]] = {
        "Sample": lambda timeout: stub.Sample(sampling(40), timeout=timeout),
        "StreamSamples": lambda timeout: list(
            stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=40)), timeout=timeout)
        ),
        "InferCodes": lambda timeout: stub.InferCodes(InferCodesRequest(tensor=images), timeout=timeout),
    }
    with pytest.raises(grpc.RpcError) as caught:
        request[kind](LIMIT)
    assert caught.value.code() == DEADLINE_EXCEEDED
    assert re.search(r"would take at least (80|7\d\.\d): allow more time, or ask for less", caught.value.details())
    assert held.generator.runs == held.encoder.runs == []
    # Without a deadline nothing is too late, nor is it with one that suffices.
    request[kind](None)
    request[kind](2 * LIMIT)


def test_a_cancelled_request_leaves_the_queue(server, held) -> None:
    first = occupy(server, held)
    second = server.stub.Sample.future(sampling(64))
    until(server, lambda: held.model.generator.depth() == 64)
    second.cancel()
    until(server, lambda: held.model.generator.depth() == 0)
    held.generator.release()
    first.result()
    server.stub.Sample(sampling(3))
    assert rows_of(held.generator.runs) == [1, 3]


def test_a_run_that_nobody_waits_for_ends_early(server, held) -> None:
    first = occupy(server, held)
    first.cancel()
    # It has left what was let in; its run is still held.
    until(server, lambda: server.server.admission.rows == 0)
    held.generator.release()
    assert len(server.stub.Sample(sampling(3)).batch.categories) == 3
    assert held.generator.terminated == [1]
    assert rows_of(held.generator.runs) == [1, 3]


def test_a_request_cancelled_between_chunks_goes_no_further(server, held) -> None:
    held.generator.hold()
    large = server.stub.Sample.future(sampling(1000))
    held.generator.wait_for_run()
    held.generator.release_one()
    held.generator.wait_for_run()
    large.cancel()
    until(server, lambda: server.server.admission.rows == 0)
    held.generator.release()
    server.stub.Sample(sampling(3))
    assert rows_of(held.generator.runs) == [64, 64, 3]
    assert held.generator.terminated == [64]


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
