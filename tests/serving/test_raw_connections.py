"""Connections that are no gRPC, messages at the edge of their limit, and clients that do not read."""

import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from infosink.serving import server
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_UINT8,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    PngImages,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

LIMIT = 60
MESSAGE_BYTES = 4 * 2**20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, DATA, CONTINUATION, RST_STREAM, PING, WINDOW_UPDATE = 4, 1, 0, 9, 3, 6, 8
ACKNOWLEDGED = 1


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1), whose stated length may be a lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: str, value: str) -> bytes:
    """A literal header field with a name of its own (RFC 7541, 6.2.2)."""
    return b"\x00" + b"".join(_prefixed(text.encode()) for text in (name, value))


def _prefixed(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    size -= 127
    return bytes([127, size & 127 | 128, size >> 7]) + text


def call(method: str) -> bytes:
    """The header fields of a call."""
    return b"".join(
        field(name, value)
        for name, value in {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "infosink",
            "te": "trailers",
            "content-type": "application/grpc",
        }.items()
    )


START = PREFACE + frame(SETTINGS)
SAMPLE = call("/infosink.v1.SamplingService/Sample")
CONNECTIONS = {
    "nothing": b"",
    "a line": b"hello\n",
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: infosink\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "half a preface": PREFACE[:10],
    "a preface alone": PREFACE,
    "garbage": random.Random(0).randbytes(100_000),
    "garbage after the preface": START + random.Random(1).randbytes(100_000),
    "a frame cut short": START + frame(HEADERS, b"\x82", 4, 1, length=100),
    "the largest frame": START + frame(DATA, bytes(2**20), 0, 1, length=2**24 - 1),
    "frames over the agreed size": START + frame(DATA, bytes(2**17), 0, 1) * 8,
    "data without headers": START + frame(DATA, bytes(100), 1, 1),
    "headers that do not decode": START + frame(HEADERS, b"\xff" * 100, 4, 1),
    "headers without end": START + frame(HEADERS, b"\x82", 0, 1) + frame(CONTINUATION, b"\x00" * 16000, 0, 1) * 40,
    "many header fields": START
    + frame(HEADERS, SAMPLE, 0, 1)
    + b"".join(frame(CONTINUATION, field(f"x-{number}", "x" * 16000), 0, 1) for number in range(100)),
    "a message that never ends": START
    + frame(HEADERS, SAMPLE, 4, 1)
    + frame(DATA, b"\x00" + (2**32 - 1).to_bytes(4, "big"), 0, 1)
    + frame(DATA, bytes(16000), 0, 1) * 100,
    "an even stream": START + frame(HEADERS, b"\x82", 4, 2),
    "settings of a wrong size": START + frame(SETTINGS, bytes(5)),
    "many settings": START + frame(SETTINGS, struct.pack(">HI", 1, 2**32 - 1)) * 2000,
    "many pings": START + frame(PING, bytes(8)) * 2000,
    "streams that are reset": START
    + b"".join(
        frame(HEADERS, b"\x82", 4, stream) + frame(RST_STREAM, bytes(4), 0, stream) for stream in range(1, 2000, 2)
    ),
    "a window too large": START + frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1)) * 2,
    "an unknown frame": START + frame(77, bytes(100)) * 100,
}


def is_serving(address: str) -> bool:
    """Whether a new connection is answered."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        reply = HealthStub(channel).Check(HealthCheckRequest(), timeout=LIMIT, wait_for_ready=True)
    return reply.status == HealthCheckResponse.SERVING


def send(address: str, data: bytes) -> None:
    """Sends the bytes on a connection of their own, as far as the server takes them, and closes it."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.settimeout(0.2)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            # The server has hung up, or waits for more.
            pass


def test_connections_that_are_no_grpc_leave_the_server_serving(running: Any) -> None:
    for data in CONNECTIONS.values():
        send(running.address, data)
    assert is_serving(running.address)
    assert running.stub.Sample(SampleRequest(draw=Draw(count=1)), timeout=LIMIT).batch.categories


def test_connections_that_stay_open_leave_the_server_serving(running: Any) -> None:
    host, port = running.address.rsplit(":", 1)
    with ExitStack() as stack:
        for data in CONNECTIONS.values():
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT))
            connection.settimeout(0.2)
            try:
                connection.sendall(data)
            except OSError:
                continue
        assert is_serving(running.address)


@pytest.fixture
def watching(
    start_server: Callable, load_file: Callable, schema_1: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A connection that watches a server's health; the server looks after its clients each second, not each minute."""
    options = [(name, value // 60 if name == "grpc.keepalive_time_ms" else value) for name, value in server._OPTIONS]
    monkeypatch.setattr(server, "_OPTIONS", options)
    host, port = start_server(load_file(schema_1 / "gen.onnx")).address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(START + frame(HEADERS, call("/grpc.health.v1.Health/Watch"), 4, 1))
        # An empty message, and no more.
        connection.sendall(frame(DATA, bytes(5), 1, 1))
        yield connection


def pings(connection: socket.socket) -> Iterator[bytes]:
    """What each PING of the server holds, until it hangs up; its settings are agreed to."""
    unread = b""
    while received := connection.recv(65536):
        unread += received
        while len(unread) >= 9 and len(unread) >= (end := 9 + int.from_bytes(unread[:3], "big")):
            kind, flags, payload, unread = unread[3], unread[4], unread[9:end], unread[end:]
            if kind == SETTINGS and not flags:
                connection.sendall(frame(SETTINGS, flags=ACKNOWLEDGED))
            if kind == PING and not flags:
                yield payload


def test_clients_that_are_idle_are_asked_whether_they_are_there(watching: socket.socket) -> None:
    asked = pings(watching)
    # The first is how gRPC measures a new connection.
    for _ in range(3):
        watching.sendall(frame(PING, next(asked), ACKNOWLEDGED))


@pytest.mark.slow
def test_a_client_that_does_not_answer_is_hung_up_on(watching: socket.socket) -> None:
    """A minute after it was asked."""
    asked = pings(watching)
    watching.sendall(frame(PING, next(asked), ACKNOWLEDGED))
    watching.settimeout(2 * LIMIT)
    assert len(list(asked)) == 1


def request_of(size: int) -> InferCodesRequest:
    """A request whose message has exactly `size` bytes."""
    request = InferCodesRequest(png=PngImages(images=[bytes(size - 32)]))
    request.png.images[0] += bytes(size - request.ByteSize())
    assert request.ByteSize() == size
    return request


def test_a_request_of_exactly_the_limit_is_read_and_one_byte_more_is_not(running: Any, refusal: Callable) -> None:
    code, message = refusal(running.stub.InferCodes, request_of(MESSAGE_BYTES))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "image 0 is not a PNG" in message
    code, message = refusal(running.stub.InferCodes, request_of(MESSAGE_BYTES + 1))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MESSAGE_BYTES) in message


@pytest.mark.parametrize("encoding", [ENCODING_UINT8, ENCODING_FLOAT32])
def test_the_largest_reply_reaches_a_client_of_stock_limits(running: Any, refusal: Callable, encoding: int) -> None:
    limits = running.stub.GetModel(GetModelRequest()).served_model.limits
    most = limits.unary_uint8_samples if encoding == ENCODING_UINT8 else limits.unary_float32_samples
    # A style for every sample is what makes a reply largest.
    request = SampleRequest(draw=Draw(count=most, seed=2**64 - 1, first_index=2**64 - most), encoding=encoding)
    reply = running.stub.Sample(request, timeout=LIMIT)
    assert len(reply.batch.categories) == most
    assert 0.9 * MESSAGE_BYTES < reply.ByteSize() <= MESSAGE_BYTES
    request.draw.count, request.draw.first_index = most + 1, 0
    code, message = refusal(running.stub.Sample, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"over the limit of {most}" in message


def resident_bytes(pid: int) -> int:
    """The physical memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_what_is_no_grpc_costs_no_memory(serve: Callable, schema_1: Path) -> None:
    """Neither while its connections are open, nor later."""
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--threads", "1")
    address = process.ready()
    host, port = address.rsplit(":", 1)
    # Of headers over the limit gRPC itself keeps some, whatever the server is.
    spared = [data for kind, data in CONNECTIONS.items() if kind != "many header fields"]

    def held_by(waves: int) -> list[int]:
        """What the process holds with connections of every kind, so many of each, and without them."""
        with ExitStack() as stack:
            for _ in range(waves):
                for data in spared:
                    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT))
                    connection.setblocking(False)
                    with suppress(OSError):
                        # As much as is taken at once.
                        connection.send(data)
            assert is_serving(address)
            meanwhile = resident_bytes(process.popen.pid)
        assert is_serving(address)
        return [meanwhile, resident_bytes(process.popen.pid)]

    before = held_by(1)[-1]
    # Which send more than a hundred million bytes.
    held = held_by(15) + held_by(15)
    assert max(held) - before < 20 * 2**20


def test_slow_readers_cost_neither_memory_nor_the_others_answers(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--threads", "1")
    address = process.ready()
    with grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        stub.Sample(SampleRequest(draw=Draw(count=64)), timeout=LIMIT)
        before = resident_bytes(process.popen.pid)
        draw = Draw(count=1_000_000, seed=1)
        slow: list[Iterator] = [
            stub.StreamSamples(StreamSamplesRequest(draw=draw, encoding=ENCODING_FLOAT32), timeout=LIMIT)
            for _ in range(6)
        ]
        first = [next(call).batch for call in slow]
        for _ in range(50):
            assert len(stub.Sample(SampleRequest(draw=Draw(count=64)), timeout=LIMIT).batch.categories) == 64
        assert is_serving(address)
        # All of the streams together would be more than a gigabyte.
        assert resident_bytes(process.popen.pid) - before < 150 * 2**20
        second = [next(call).batch for call in slow]
        assert [batch.first_index for batch in first] == [0] * 6
        assert [batch.first_index for batch in second] == [64] * 6
        for call in slow:
            call.cancel()
        assert stub.Sample(SampleRequest(draw=Draw(count=1)), timeout=LIMIT).batch.categories
