"""Connections, and health checks that never come to an end: how many there may be, and for how long."""

import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from infosink.serving import server as serving
from infosink.serving.calls import door
from infosink.v1.sampling_service_pb2 import Draw, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

LIMIT = 60
SERVING = HealthCheckResponse.SERVING
ALONE = [("grpc.use_local_subchannel_pool", 1)]
"""A channel with a connection of its own."""
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
# The preface, settings, and the acknowledgement of the server's (RFC 9113, 3.4).
START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000000000040100000000")


@contextmanager
def connected(address: str, data: bytes = START) -> Iterator[socket.socket]:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(data)
        yield connection


@contextmanager
def waiting(channel: grpc.Channel, path: str, count: int) -> Iterator[list[Any]]:
    """Calls that have come, and whose messages do not."""
    done = threading.Event()
    # On a connection that is open, calls arrive in their order.
    assert check(channel) == SERVING

    def wait() -> Iterator[bytes]:
        done.wait()
        yield from ()

    calls = [channel.stream_unary(path).future(wait()) for _ in range(count)]
    try:
        yield calls
    finally:
        done.set()


def check(channel: grpc.Channel) -> Any:
    return HealthStub(channel).Check(HealthCheckRequest(), timeout=LIMIT).status


def answers(channel: grpc.Channel) -> bool:
    """Whether there is a place for a health check."""
    asked = HealthStub(channel).Check.future(HealthCheckRequest(), timeout=LIMIT)
    assert asked.code() in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return bool(asked.code() == grpc.StatusCode.OK)


def error_of(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def reason_of(error: grpc.RpcError) -> str:
    info = ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    return info.reason


@pytest.fixture
def model(load_file: Callable, schema_1: Path) -> Iterator[Any]:
    model = load_file(schema_1 / "gen.onnx")
    yield model
    model.close()


@pytest.fixture(params=["main", "health"])
def address(start_server: Callable, model: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Of a port that lets in four health checks at once, each for a second."""
    monkeypatch.setattr(door, "CHECKS", 4)
    monkeypatch.setattr(door, "CHECK_SECONDS", 1.0)
    server = start_server(model, health_port=0)
    return server.address if request.param == "main" else server.server.health_address


def test_health_checks_without_their_message_are_limited_and_end(address: str) -> None:
    with grpc.insecure_channel(address, options=ALONE) as channel, waiting(channel, CHECK, 5) as calls:
        errors = [call.exception(LIMIT) for call in calls]
        (refused,) = [error for error in errors if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert refused.details().startswith("4 health checks are open, as many as this server allows at once")
        assert reason_of(refused) == "TOO_MANY_CALLS"
        errors.remove(refused)
        assert {error.code() for error in errors} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        for error in errors:
            assert error.details() == "the message of a health check did not come within 1 seconds: try again"
            assert reason_of(error) == "DEADLINE_EXPIRED"
        assert check(channel) == SERVING


def test_health_checks_whose_answer_is_not_read_make_room(address: str) -> None:
    # The windows are smaller than an answer.
    options = [*ALONE, ("grpc.http2.lookahead_bytes", 5), ("grpc.http2.bdp_probe", 0)]
    with (
        grpc.insecure_channel(address, options=options) as unread,
        grpc.insecure_channel(address, options=ALONE) as channel,
    ):
        # On a connection that is open, calls arrive in their order.
        assert check(unread) == SERVING
        calls = [unread.unary_stream(CHECK)(b"") for _ in range(5)]
        assert error_of(lambda: next(calls[4])).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert all(call.is_active() for call in calls[:4])
        end = time.monotonic() + LIMIT
        while not answers(channel):
            assert time.monotonic() < end


def test_many_health_checks_at_once_are_answered(start_server: Callable, model: Any) -> None:
    server = start_server(model, health_port=0)
    for address in (server.address, server.server.health_address):
        with grpc.insecure_channel(address, options=ALONE) as channel:
            asked = [HealthStub(channel).Check.future(HealthCheckRequest(), timeout=LIMIT) for _ in range(100)]
            assert {call.result(LIMIT).status for call in asked} == {SERVING}


@pytest.mark.parametrize("port", ["main", "health"])
def test_health_checks_of_all_kinds_that_are_none_are_refused_without_noise(
    serve: Callable, schema_1: Path, port: str
) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--health-port", "0", "--log-level", "warning")
    main = process.ready()
    address = main if port == "main" else re.search(r"health on (\S+)", process.ready_line).group(1)
    with grpc.insecure_channel(address) as channel:
        with waiting(channel, CHECK, 50) as left:
            # They are there before this one.
            assert check(channel) == SERVING
            for call in left:
                call.cancel()
        empty = error_of(lambda: channel.stream_unary(CHECK)(iter(()), timeout=LIMIT))
        assert empty.code() == grpc.StatusCode.INVALID_ARGUMENT
        ask = channel.unary_unary(CHECK)
        malformed = error_of(lambda: ask(b"\xff\xff\xff", timeout=LIMIT))
        assert malformed.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(malformed) == "MESSAGE_MALFORMED"
        name = HealthCheckRequest(service="x" * door.CHECK_BYTES).SerializeToString()
        large = error_of(lambda: ask(name, timeout=LIMIT))
        if port == "main":
            assert large.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert large.details().startswith("the message of a health check has 1027 bytes, over the limit of 1024")
            assert reason_of(large) == "LIMIT_EXCEEDED"
        else:
            # What is more is not even received.
            assert large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        largest = error_of(lambda: ask(bytes(2**22 + 1), timeout=LIMIT))
        assert largest.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        unknown = error_of(lambda: HealthStub(channel).Check(HealthCheckRequest(service="x" * 500), timeout=LIMIT))
        assert unknown.code() == grpc.StatusCode.NOT_FOUND
        assert check(channel) == SERVING
    process.signal(signal.SIGTERM)
    code, _, errors = process.end()
    assert (code, errors) == (0, "")


def test_connections_are_limited(start_server: Callable, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    server = start_server(model)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(server.address))
        early = stack.enter_context(grpc.insecure_channel(server.address, options=ALONE))
        assert check(early) == SERVING
        late = stack.enter_context(grpc.insecure_channel(server.address, options=ALONE))
        assert error_of(lambda: check(late)).code() == grpc.StatusCode.UNAVAILABLE
        # Who is in is served, its new calls too.
        assert SamplingServiceStub(early).Sample(SampleRequest(draw=Draw(count=2)), timeout=LIMIT).batch.categories
        early.close()
        reply = HealthStub(late).Check(HealthCheckRequest(), timeout=LIMIT, wait_for_ready=True)
        assert reply.status == SERVING


def test_idle_connections_end_and_busy_ones_do_not(
    start_server: Callable, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [(name, 300 if name == "grpc.max_connection_idle_ms" else value) for name, value in serving._OPTIONS]
    monkeypatch.setattr(serving, "_OPTIONS", options)
    server = start_server(model)
    with grpc.insecure_channel(server.address, options=ALONE) as busy:
        watch = HealthStub(busy).Watch(HealthCheckRequest(), timeout=LIMIT)
        assert next(watch).status == SERVING
        for data in (b"", b"PRI", START):
            with connected(server.address, data) as idle:
                while idle.recv(65536):
                    pass
        assert watch.is_active()
        watch.cancel()


@contextmanager
def files_allowed(count: int) -> Iterator[None]:
    """Processes that are started within may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_leave_descriptors_for_all_else(serve: Callable, schema_1: Path) -> None:
    options = ("--port", "0", "--health-port", "0", "--metrics-port", "0", "--log-level", "warning")
    with files_allowed(256):
        process = serve("--model", schema_1 / "gen.onnx", *options)
    main = process.ready()
    metrics = re.search(r"metrics on (\S+)", process.ready_line).group(1)
    health = re.search(r"health on (\S+?),", process.ready_line).group(1)
    assert process.error_line() == (
        "infosink-serve: WARNING: 128 connections are let in at once, not 512, since this process may open no more "
        "than 256 files: have ulimit -n allow 1024\n"
    )
    with ExitStack() as stack:
        early = stack.enter_context(grpc.insecure_channel(main, options=ALONE))
        assert check(early) == SERVING
        for address in (main, health):
            for _ in range(150):
                stack.enter_context(connected(address))
        late = stack.enter_context(grpc.insecure_channel(main, options=ALONE))
        assert error_of(lambda: check(late)).code() == grpc.StatusCode.UNAVAILABLE
        with urlopen(f"http://{metrics}/metrics", timeout=LIMIT) as reply:
            assert b"infosink_requests_total" in reply.read()
        assert check(early) == SERVING
    process.signal(signal.SIGTERM)
    code, _, errors = process.end()
    assert (code, errors) == (0, "")


def test_calls_on_the_health_port_do_not_keep_a_server(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--health-port", "0", "--grace", "3600")
    process.ready()
    address = re.search(r"health on (\S+)", process.ready_line).group(1)
    with grpc.insecure_channel(address, options=ALONE) as channel, waiting(channel, WATCH, 1):
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        assert next(watch).status == SERVING
        process.signal(signal.SIGTERM)
        # Who listens is told.
        assert [reply.status for reply in watch] == [HealthCheckResponse.NOT_SERVING]
        assert process.end() == (0, "infosink-serve: draining, for at most 3600 seconds\ninfosink-serve: stopped\n", "")
