"""Clients that ask and do not read: what waits for them is counted, and given back when they have gone."""

import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from infosink.oip.open_inference_service_pb2 import InferParameter, ModelInferRequest
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    SampleRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_UINT8, Tensor

LIMIT = 60
MEBIBYTE = 2**20
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, CANCEL = 4, 8

SAMPLE = "/infosink.v1.SamplingService/Sample"
CALLS: dict[str, Message] = {
    SAMPLE: SampleRequest(draw=Draw(count=200, seed=1), encoding=ENCODING_FLOAT32),
    "/infosink.v1.SamplingService/InferCodes": InferCodesRequest(
        tensor=Tensor(data_type=DATA_TYPE_UINT8, shape=[200, 8, 8, 1], data=bytes(12_800))
    ),
    "/inference.GRPCInferenceService/ModelInfer": ModelInferRequest(
        model_name="tiny-images", parameters={"count": InferParameter(int64_param=200)}
    ),
}


class Unread:
    """A connection whose client reads no reply: all its windows are of no bytes (RFC 9113, 6.9.2)."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=LIMIT)
        self._from_server = self._socket.makefile("rb")
        self.asked = 0
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(SETTINGS, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        self._send(SETTINGS, flags=ACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._from_server.close()
        self._socket.close()

    def ask(self, method: str, request: Message) -> bool:
        """Makes a call; returns whether there is a reply, of which the headers are told, rather than a refusal."""
        stream, message = 2 * self.asked + 1, request.SerializeToString()
        self.asked += 1
        fields = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "infosink")]
        fields += [("content-type", "application/grpc"), ("te", "trailers")]
        # Each a literal that is not indexed (RFC 7541, 6.2.2).
        headers = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
        )
        self._send(HEADERS, headers, END_HEADERS, stream)
        # Within the 16 KiB that any server takes in one frame.
        self._send(DATA, b"\0" + struct.pack(">I", len(message)) + message, END_STREAM, stream)
        return not self._flags_of_headers(stream) & END_STREAM

    def cancel_first(self) -> None:
        """Leaves the first call alone."""
        self._send(RST_STREAM, struct.pack(">I", CANCEL), stream=1)

    def _send(self, kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        self._socket.sendall(len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload)

    def _flags_of_headers(self, wanted: int) -> int:
        """Reads frames up to the headers of a stream."""
        while True:
            head = self._from_server.read(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self._from_server.read(int.from_bytes(head[:3], "big"))
            assert kind != DATA or not payload
            if (kind, stream) == (HEADERS, wanted):
                return int(flags)


def ask_until_refused(unread: Unread, method: str, request: Message) -> int:
    """How many calls there are with a reply that waits."""
    answered = 0
    while unread.ask(method, request):
        answered += 1
        assert answered < 100
    return answered


def is_serving(channel: grpc.Channel) -> bool:
    return HealthStub(channel).Check(HealthCheckRequest(), timeout=LIMIT).status == HealthCheckResponse.SERVING


def until(server: Any, condition: Callable[[], bool]) -> None:
    """Asks the server for its health until something has happened in it."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        assert is_serving(server.channel)


@pytest.mark.parametrize("method", CALLS)
def test_replies_that_nobody_reads_count_until_their_client_has_gone(
    start_server: Callable, load_file: Callable, schema_1: Path, method: str
) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"), queue_bytes=MEBIBYTE)
    admission = server.server.admission
    # More than may be left.
    more = SampleRequest(draw=Draw(count=400), encoding=ENCODING_FLOAT32)
    with Unread(server.address) as unread:
        assert ask_until_refused(unread, method, CALLS[method]) >= 2
        held = admission.size
        assert MEBIBYTE / 2 < held <= MEBIBYTE
        assert admission.rows == 0
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.Sample(more, timeout=LIMIT)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details().startswith(
            f"0 samples are under way, and {held} bytes, replies that are not read yet included: with this request's "
            "400 samples"
        )
        details = {detail.TypeName(): detail for detail in rpc_status.from_call(caught.value).details}
        info, retry = ErrorInfo(), RetryInfo()
        assert details[info.DESCRIPTOR.full_name].Unpack(info)
        assert details[retry.DESCRIPTOR.full_name].Unpack(retry)
        assert info.reason == "QUEUE_FULL"
        assert info.metadata == {"bytes": str(held), "limit": str(MEBIBYTE)}
        assert retry.retry_delay.ToMilliseconds() == 1000
        assert is_serving(server.channel)
        # What has been given back can be had again, and no more.
        unread.cancel_first()
        until(server, lambda: admission.size < held)
        assert ask_until_refused(unread, method, CALLS[method]) == 1
        assert admission.size == held
    until(server, lambda: admission.size == 0)
    assert len(server.stub.Sample(more, timeout=LIMIT).batch.categories) == 400
    until(server, lambda: admission.size == 0)


def test_a_request_that_may_never_be_let_in_is_refused_for_what_it_is(
    start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"), queue_bytes=MEBIBYTE // 8)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sample(CALLS[SAMPLE], timeout=LIMIT)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "and all together may take 131072: split it" in caught.value.details()


def test_replies_that_nobody_reads_take_no_more_memory_than_they_may(serve: Callable, schema_1: Path) -> None:
    most = 64 * MEBIBYTE
    options = ("--port", "0", "--threads", "1", "--queue-bytes", str(most), "--log-level", "warning")
    process = serve("--model", schema_1 / "gen.onnx", *options)
    address = process.ready()
    with grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        count = stub.GetModel(GetModelRequest(), timeout=LIMIT).served_model.limits.unary_float32_samples
        largest = SampleRequest(draw=Draw(count=count, seed=1), encoding=ENCODING_FLOAT32)
        assert len(stub.Sample(largest, timeout=LIMIT).batch.categories) == count
        before = resident_bytes(process.popen.pid)
        with Unread(address) as unread:
            assert ask_until_refused(unread, SAMPLE, largest) >= 3
            # Beside the replies there is what the allocator keeps.
            assert resident_bytes(process.popen.pid) - before < most + 16 * MEBIBYTE
            assert is_serving(channel)
    process.signal(signal.SIGTERM)
    code, _, errors = process.end()
    # That a client left without its replies is no news.
    assert (code, errors) == (0, "")


def resident_bytes(pid: int) -> int:
    """The physical memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
