"""More than the server can do: what is too much is refused at once, and what was let in is answered."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from infosink.serving.server import CONCURRENT_CALLS, METADATA_BYTES
from infosink.v1.sampling_service_pb2 import Draw, GetModelRequest, InferCodesRequest, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_UINT8, Tensor

LIMIT = 60


def sampling(count: int) -> SampleRequest:
    return SampleRequest(draw=Draw(count=count, seed=1))


@pytest.fixture
def held(held_model: Callable) -> Iterator[Any]:
    held = held_model()
    held.generator.hold()
    yield held
    held.generator.release()


def refused(call: Callable[[], object], reason: str = "QUEUE_FULL") -> tuple[str, dict[str, str], float]:
    """What a refusal for that reason says: its message, the ErrorInfo's metadata, and when to try again."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = {detail.TypeName(): detail for detail in rpc_status.from_call(caught.value).details}
    info, retry = ErrorInfo(), RetryInfo()
    assert details["google.rpc.ErrorInfo"].Unpack(info)
    assert details["google.rpc.RetryInfo"].Unpack(retry)
    assert (info.reason, info.domain) == (reason, "infosink")
    return caught.value.details(), dict(info.metadata), retry.retry_delay.ToTimedelta().total_seconds()


def test_what_is_over_the_limit_in_rows_is_refused_and_the_rest_answered(start_server: Callable, held) -> None:
    server = start_server(held.model, queue_rows=256)
    let_in = [server.stub.Sample.future(sampling(64)) for _ in range(4)]
    held.generator.wait_for_run()
    until_let_in(server, 256)
    for _ in range(20):
        message, metadata, seconds = refused(lambda: server.stub.Sample(sampling(1)))
        assert message.startswith("256 samples are under way")
        assert metadata == {"rows": "256", "limit": "256"}
        assert 0 < seconds <= 30
    images = Tensor(data_type=DATA_TYPE_UINT8, shape=[1, 8, 8, 1], data=bytes(64))
    refused(lambda: server.stub.InferCodes(InferCodesRequest(tensor=images)))
    held.generator.release()
    assert [len(call.result().batch.categories) for call in let_in] == [64] * 4
    assert len(server.stub.Sample(sampling(1)).batch.categories) == 1
    # Its client has the reply a moment before the server knows.
    until(server, lambda: (server.server.admission.rows, server.server.admission.size) == (0, 0))


def test_what_is_over_the_limit_in_bytes_is_refused(start_server: Callable, held) -> None:
    server = start_server(held.model, queue_bytes=200_000)
    let_in = server.stub.Sample.future(sampling(300))
    held.generator.wait_for_run()
    refused(lambda: server.stub.Sample(sampling(300)))
    held.generator.release()
    assert len(let_in.result().batch.categories) == 300


def test_health_and_refusals_wait_for_nobody(start_server: Callable, held) -> None:
    server = start_server(held.model, queue_rows=256, health_port=0)
    waiting = [server.stub.Sample.future(sampling(1)) for _ in range(256)]
    held.generator.wait_for_run()
    until_let_in(server, 256)
    # The session is held, so that none of them can be answered before what follows is.
    with grpc.insecure_channel(server.server.health_address) as plain:
        for channel in (server.channel, plain):
            check = HealthStub(channel).Check(HealthCheckRequest(), timeout=LIMIT)
            assert check.status == HealthCheckResponse.SERVING
        # On its own port, health is all there is.
        with pytest.raises(grpc.RpcError) as caught:
            plain.unary_unary("/infosink.v1.SamplingService/GetModel")(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.stub.GetModel(GetModelRequest(), timeout=LIMIT).served_model.model.name == "tiny-images"
    refused(lambda: server.stub.Sample(sampling(1)))
    assert not any(call.done() for call in waiting)
    held.generator.release()
    assert {len(call.result().batch.categories) for call in waiting} == {1}
    # They waited together, so they were run together.
    assert len(held.generator.runs) <= 2 + 256 / 64


def test_open_calls_are_limited_but_for_health(start_server: Callable, held) -> None:
    server = start_server(held.model)
    waiting = [server.stub.Sample.future(sampling(1)) for _ in range(CONCURRENT_CALLS)]
    until_let_in(server, CONCURRENT_CALLS)
    # Its message of 3 MB is not read.
    large = InferCodesRequest(model="x" * 3_000_000)
    message, metadata, seconds = refused(lambda: server.stub.InferCodes(large, timeout=LIMIT), "TOO_MANY_CALLS")
    assert message.startswith(f"{CONCURRENT_CALLS} calls are open")
    assert metadata == {"limit": str(CONCURRENT_CALLS)}
    assert seconds > 0
    assert HealthStub(server.channel).Check(HealthCheckRequest(), timeout=LIMIT).status == HealthCheckResponse.SERVING
    held.generator.release()
    assert {len(call.result(LIMIT).batch.categories) for call in waiting} == {1}
    assert len(server.stub.Sample(sampling(2), timeout=LIMIT).batch.categories) == 2


def test_messages_that_are_dear_to_parse_are_refused_unparsed(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--device", "cpu")
    with grpc.insecure_channel(process.ready()) as channel:
        # Two million empty codes: tag and length of the draw, then of each code.
        content = b"\x12\x00" * (2**21 - 8)
        message = (
            b"\x12"
            + bytes([len(content) & 127 | 128, len(content) >> 7 & 127 | 128])
            + (bytes([len(content) >> 14 & 127 | 128, len(content) >> 21]) + content)
        )
        sample = channel.unary_unary("/infosink.v1.SamplingService/Sample")
        calls = [sample.future(message, timeout=LIMIT) for _ in range(8)]
        health = HealthStub(channel).Check(HealthCheckRequest(), timeout=LIMIT)
        assert health.status == HealthCheckResponse.SERVING
        for call in calls:
            assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert (
                call.details()
                == "the message holds more than 65536 fields, the limit of one request: split the request"
            )
        assert len(SamplingServiceStub(channel).Sample(sampling(2)).batch.categories) == 2


def test_headers_over_the_limit_are_refused(start_server: Callable, held) -> None:
    server = start_server(held.model)
    stub = server.stub
    assert stub.GetModel(GetModelRequest(), metadata=[("x-note", "n" * (METADATA_BYTES // 2))]).HasField("served_model")
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(GetModelRequest(), metadata=[("x-note", "n" * (METADATA_BYTES + 1))], timeout=LIMIT)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.GetModel(GetModelRequest(), timeout=LIMIT).HasField("served_model")


def until(server, condition: Callable[[], bool]) -> None:
    """Asks the server for its health until something has happened in it."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        HealthStub(server.channel).Check(HealthCheckRequest(), timeout=LIMIT)


def until_let_in(server, rows: int) -> None:
    until(server, lambda: server.server.admission.rows >= rows)
