"""What the server tells of its calls, against what its clients know."""

import asyncio
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from infosink.serving.calls.call_record import CallRecord, current
from infosink.serving.calls.status import abort_on_error
from infosink.serving.errors import BusyError, StartupError
from infosink.serving.observation import metrics_endpoint, request_log
from infosink.serving.observation.interceptor import ObservationInterceptor
from infosink.serving.observation.metrics import Metrics
from infosink.serving.observation.metrics_endpoint import serve_metrics
from infosink.serving.observation.request_log import start_logging
from infosink.serving.observation.tracing import Tracing, tracing_from_environment
from infosink.serving.server import METHODS as SERVED_METHODS
from infosink.v1.sampling_service_pb2 import (
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    ListModelsRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

LIMIT = 60
"""Seconds after which a test that waits has failed."""
MESSAGE_BYTES = 1000
SERVICE = "test.Endings"
Context = grpc.aio.ServicerContext


class Endings(grpc.GenericRpcHandler):
    """A method for each way in which a call may end."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.closed_streams = 0
        self.hanging = 0

    async def answer(self, request: bytes, _context: Context) -> bytes:
        record = current()
        record.model, record.role, record.rows = "tiny", "generator", 3
        record.queue_seconds, record.codec_seconds, record.runs = 0.25, 0.125, [(64, 0.5)]
        self.records.append(record)
        return request

    async def parse(self, request: GetModelRequest, _context: Context) -> bytes:
        return request.model.encode()

    async def refuse(self, _request: bytes, context: Context) -> bytes:
        async with abort_on_error(context):
            raise BusyError("no room", reason="QUEUE_FULL")

    async def fail(self, _request: bytes, _context: Context) -> bytes:
        raise KeyError("a secret of the server")

    async def hang(self, _request: bytes, _context: Context) -> bytes:
        self.hanging += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            for number in range(int(request)):
                yield str(number).encode()
            async with abort_on_error(context):
                if int(request) == 13:
                    raise BusyError("thirteen", reason="QUEUE_FULL")
        finally:
            self.closed_streams += 1

    async def collect(self, requests: AsyncIterator[bytes], _context: Context) -> bytes:
        return b"".join([request async for request in requests])

    async def converse(self, requests: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handlers = {
            "Answer": grpc.unary_unary_rpc_method_handler(self.answer),
            "Parse": grpc.unary_unary_rpc_method_handler(self.parse, GetModelRequest.FromString),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Converse": grpc.stream_stream_rpc_method_handler(self.converse),
        }
        return handlers.get(details.method.removeprefix(f"/{SERVICE}/"))


METHODS = ["Answer", "Parse", "Refuse", "Fail", "Hang", "Stream", "Collect", "Converse"]


@dataclass
class Observed:
    """A server whose calls are observed, and a client that keeps its own count of them."""

    metrics: Metrics
    metrics_address: str
    channel: grpc.aio.Channel
    endings: Endings
    truth: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def ended(self, method: str, call: Awaitable[object]) -> grpc.aio.Metadata:
        """Waits for a call's end and counts it; returns its trailing metadata."""
        try:
            if isinstance(call, grpc.aio.StreamStreamCall | grpc.aio.UnaryStreamCall):
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            assert call.cancelled()
        self.truth[method, (await call.code()).name] += 1
        return await call.trailing_metadata()

    async def unary(self, method: str, request: bytes = b"x", **options: object) -> grpc.aio.Metadata:
        call = self.channel.unary_unary(f"/{SERVICE}/{method}")(request, **options)
        return await self.ended(f"{SERVICE}/{method}" if method in METHODS else "other", call)

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        while any(value for _, value in samples(self.metrics, "infosink_requests_in_flight")):
            await asyncio.sleep(0)

    async def scrape(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
        return await asyncio.to_thread(scrape, self.metrics_address, path, method)


async def begun(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        break


def scrape(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=LIMIT)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def samples(metrics: Metrics, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels, sample.value


def values(text: str, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of this name in what a scrape gave, by these labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@asynccontextmanager
async def observed(tracing: Tracing | None = None) -> AsyncIterator[Observed]:
    metrics = Metrics([f"/{SERVICE}/{method}" for method in METHODS], list)
    endings = Endings()
    server = grpc.aio.server(
        interceptors=[ObservationInterceptor(metrics, tracing)],
        options=[("grpc.max_receive_message_length", MESSAGE_BYTES)],
    )
    server.add_generic_rpc_handlers([endings])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        asyncio.timeout(LIMIT),
        serve_metrics(metrics, "127.0.0.1", 0) as address,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Observed(metrics, address, channel, endings)
    await server.stop(0)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, as JSON."""
    root, ours = logging.getLogger(), logging.getLogger("infosink.serving")
    before = root.handlers[:], root.level, ours.level
    root.handlers = []
    text = io.StringIO()
    handler = start_logging("json", "debug", text)
    yield text
    handler.close()
    root.handlers, level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(False)


def objects(logged: io.StringIO) -> list[dict[str, object]]:
    """The lines of the log, each of which must be one JSON object."""
    for handler in logging.getLogger().handlers:
        handler.close()
    return [json.loads(line) for line in logged.getvalue().splitlines()]


async def end_in_every_way(server: Observed) -> None:
    for _ in range(3):
        await server.unary("Answer")
    await server.unary("Answer", b"x" * (MESSAGE_BYTES + 1))
    await server.unary("Parse", GetModelRequest(model="tiny").SerializeToString())
    await server.unary("Parse", b"\xff\xff\xff")
    await server.unary("Refuse")
    await server.unary("Fail")
    await server.unary("Hang", timeout=0.05)
    await server.unary("Unknown")
    hanging = server.channel.unary_unary(f"/{SERVICE}/Hang")(b"x")
    while server.endings.hanging < 2:
        await asyncio.sleep(0)
    hanging.cancel()
    await server.ended(f"{SERVICE}/Hang", hanging)
    stream = server.channel.unary_stream(f"/{SERVICE}/Stream")
    await server.ended(f"{SERVICE}/Stream", stream(b"5"))
    await server.ended(f"{SERVICE}/Stream", stream(b"13"))
    endless = stream(b"1000000000")
    await begun(endless)
    endless.cancel()
    await server.ended(f"{SERVICE}/Stream", endless)

    async def three() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x"

    await server.ended(f"{SERVICE}/Collect", server.channel.stream_unary(f"/{SERVICE}/Collect")(three()))
    await server.ended(f"{SERVICE}/Converse", server.channel.stream_stream(f"/{SERVICE}/Converse")(three()))
    await server.idle()


def test_every_call_is_counted_once_by_the_code_that_its_client_saw() -> None:
    async def scenario() -> None:
        async with observed() as server:
            await end_in_every_way(server)
            _, text = await server.scrape()
            assert values(text, "infosink_requests_total", "method", "code") == server.truth
            by_method = Counter[tuple[str]]()
            for (method, _), count in server.truth.items():
                by_method[(method,)] += count
            assert values(text, "infosink_request_seconds_count", "method") == by_method
            assert values(text, "infosink_rejected_total", "reason") == {("QUEUE_FULL",): 2, ("MESSAGE_MALFORMED",): 1}
            answers = server.truth[f"{SERVICE}/Answer", "OK"]
            assert values(text, "infosink_rows_total", "model", "role") == {("tiny", "generator"): 3 * answers}
            assert values(text, "infosink_queue_seconds_sum", "model") == {("tiny",): 0.25 * answers}
            assert values(text, "infosink_codec_seconds_sum", "method") == {(f"{SERVICE}/Answer",): 0.125 * answers}
            assert values(text, "infosink_batch_rows_sum", "role") == {("generator",): 64 * answers}
            assert values(text, "infosink_compute_seconds_sum", "role") == {("generator",): 0.5 * answers}

    asyncio.run(scenario())


def test_what_a_stream_holds_is_given_back_when_its_client_leaves() -> None:
    async def scenario() -> None:
        async with observed() as server:
            call = server.channel.unary_stream(f"/{SERVICE}/Stream")(b"1000000000")
            await begun(call)
            call.cancel()
            await server.idle()
            assert server.endings.closed_streams == 1

    asyncio.run(scenario())


def test_concurrent_calls_have_records_of_their_own() -> None:
    async def scenario() -> None:
        async with observed() as server:
            names = [f"call-{number}" for number in range(50)]
            told = await asyncio.gather(*(server.unary("Answer", metadata=(("x-request-id", name),)) for name in names))
            assert [dict(metadata)["x-request-id"] for metadata in told] == names
            assert sorted(record.request_id for record in server.endings.records) == sorted(names)
            assert current().request_id == ""

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["Answer", "Refuse", "Fail", "Parse"])
def test_the_client_is_told_its_request_id(logged: io.StringIO, method: str) -> None:
    async def scenario() -> str:
        async with observed() as server:
            metadata = await server.unary(method, b"\xff")
            await server.idle()
            return dict(metadata)["x-request-id"]

    request_id = asyncio.run(scenario())
    lines = [line for line in objects(logged) if line["message"] == "request"]
    assert [line["request_id"] for line in lines] == [request_id]


@pytest.mark.parametrize(
    "hostile", ["", "x" * 65, "a b", 'a"b', "a{b}", "%0a", "$(reboot)", "a/b"], ids=lambda text: text[:8] or "empty"
)
def test_a_hostile_request_id_is_replaced(logged: io.StringIO, hostile: str) -> None:
    async def scenario() -> str:
        async with observed() as server:
            told = await server.unary("Answer", metadata=(("x-request-id", hostile),))
            await server.idle()
            return dict(told)["x-request-id"]

    assert len(asyncio.run(scenario())) == 16
    assert hostile == "" or not [line for line in objects(logged) if hostile in str(line.get("request_id"))]


def test_each_line_of_the_log_is_an_object_and_each_request_has_one(logged: io.StringIO) -> None:
    async def scenario() -> Counter[tuple[str, str]]:
        async with observed() as server:
            await end_in_every_way(server)
            return server.truth

    truth = asyncio.run(scenario())
    lines = [line for line in objects(logged) if line["message"] == "request"]
    other = {line["method"] for line in lines} - {method for method, _ in truth}
    assert other == {f"{SERVICE}/Unknown"}
    counted = Counter(("other" if line["method"] in other else line["method"], line["code"]) for line in lines)
    assert counted == truth
    levels = {line["code"]: line["level"] for line in lines}
    assert levels["OK"] == levels["CANCELLED"] == "DEBUG"
    assert levels["INVALID_ARGUMENT"] == levels["RESOURCE_EXHAUSTED"] == levels["DEADLINE_EXCEEDED"] == "INFO"
    assert levels["UNKNOWN"] == "ERROR"


def test_no_token_is_logged(logged: io.StringIO) -> None:
    token = "correct-horse-battery-staple"

    async def scenario() -> None:
        async with observed() as server:
            for method in METHODS[:4]:
                await server.unary(method, metadata=(("authorization", f"Bearer {token}"),))
            await server.idle()

    asyncio.run(scenario())
    assert len(objects(logged)) >= 4
    assert token not in logged.getvalue()


def test_clients_cannot_make_up_labels() -> None:
    async def scenario() -> str:
        async with observed() as server:
            for number in range(20):
                await server.unary(f"Unknown{number}")
            await server.idle()
            return (await server.scrape())[1]

    text = asyncio.run(scenario())
    assert values(text, "infosink_requests_total", "method", "code") == {("other", "UNIMPLEMENTED"): 20}


def test_only_metrics_are_served_and_only_to_get() -> None:
    async def scenario() -> None:
        async with observed() as server:
            assert (await server.scrape("/metrics?name=x"))[0] == 200
            for path in ("/", "/metrics/", "/metricsx", "/../etc/passwd", "/debug"):
                assert (await server.scrape(path))[0] == 404
            for method in ("POST", "PUT", "DELETE", "HEAD"):
                assert (await server.scrape(method=method))[0] == 405

    asyncio.run(scenario())


def test_a_metrics_port_in_use_is_said_at_start() -> None:
    async def scenario() -> None:
        async with observed() as server:
            with pytest.raises(StartupError, match=f"{server.metrics_address}.*--metrics-port"):
                async with serve_metrics(server.metrics, "127.0.0.1", int(server.metrics_address.split(":")[1])):
                    pass

    asyncio.run(scenario())


def test_idle_and_garbled_connections_do_not_keep_a_scrape_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_endpoint, "_SECONDS", 0.2)

    async def scenario() -> None:
        async with observed() as server:
            host, port = server.metrics_address.split(":")
            connections = [socket.create_connection((host, int(port))) for _ in range(100)]
            for number, connection in enumerate(connections):
                connection.settimeout(LIMIT)
                connection.sendall(b"\0" * 100_000 if number == 50 else b"G")
            for connection in connections:
                # The end of a connection that was given up, one way or the other.
                with connection, suppress(ConnectionResetError):
                    assert await asyncio.to_thread(connection.recv, 1) == b""
            assert (await server.scrape())[0] == 200

    asyncio.run(scenario())


def test_a_log_that_nobody_reads_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_WAITING_LINES", 100)
    read_end, write_end = os.pipe()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    with os.fdopen(write_end, "w") as stream, os.fdopen(read_end) as reader:
        handler = start_logging("text", "info", stream)
        for number in range(5_000):
            logging.getLogger("infosink.serving").warning("line %d", number)
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(reader))
        reading.start()
        while not any("were dropped" in line for line in lines[:]):
            logging.getLogger("infosink.serving").warning("more")
        handler.close()
        stream.close()
        reading.join(LIMIT)
    root.handlers = before
    root.setLevel(level)
    logging.captureWarnings(False)
    (dropped,) = [int(line.split(": ")[2].split()[0]) for line in lines if "were dropped" in line][:1]
    assert dropped > 0
    assert "infosink-serve: WARNING: line 0\n" in lines


def test_text_in_the_log_cannot_pass_for_a_line_of_it() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    text = io.StringIO()
    handler = start_logging("text", "info", text)
    forged = "x\ninfosink-serve: ERROR: forged\x1b[2J\u2028"
    logger = logging.getLogger("infosink.serving")
    logger.warning("%s", forged)
    logger.error("failed", exc_info=ValueError(forged))
    logger.info("request", extra={"fields": {"method": forged, "rows": 3}})
    handler.close()
    root.handlers = before
    root.setLevel(level)
    logging.captureWarnings(False)
    lines = text.getvalue().split("\n")
    assert not [line for line in lines if line.startswith("infosink-serve: ERROR: forged")]
    assert "\x1b" not in text.getvalue()
    assert "\u2028" not in text.getvalue()
    assert any(line.endswith(" rows=3") for line in lines)


@pytest.fixture
def spans() -> Iterator[tuple[InMemorySpanExporter, Tracing]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    yield exporter, tracing
    tracing.close()


def test_spans_are_children_of_the_clients(spans: tuple[InMemorySpanExporter, Tracing], logged: io.StringIO) -> None:
    exporter, tracing = spans
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

    async def scenario() -> None:
        async with observed(tracing) as server:
            await server.unary("Answer", metadata=(("traceparent", f"00-{trace}-{parent}-01"),))
            await server.unary("Refuse", metadata=(("traceparent", "garbage"),))
            await server.unary("Fail")
            await server.idle()

    asyncio.run(scenario())
    answer, refuse, fail = exporter.get_finished_spans()
    assert answer.name == f"{SERVICE}/Answer"
    assert answer.kind == SpanKind.SERVER
    assert (f"{answer.context.trace_id:032x}", f"{answer.parent.span_id:016x}") == (trace, parent)
    assert answer.attributes["infosink.queue_seconds"] == 0.25
    assert answer.attributes["infosink.model"] == "tiny"
    assert answer.attributes["rpc.grpc.status_code"] == 0
    assert answer.status.is_ok
    assert refuse.parent is None
    assert refuse.attributes["rpc.grpc.status_code"] == 8
    assert refuse.status.is_ok
    assert not fail.status.is_ok
    lines = [line for line in objects(logged) if line["message"] == "request"]
    assert [line["trace_id"] for line in lines] == [f"{span.context.trace_id:032x}" for span in (answer, refuse, fail)]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nothing_is_traced_unasked(environment: dict[str, str]) -> None:
    assert tracing_from_environment(environment) is None


def test_an_exporter_that_is_not_installed_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert tracing_from_environment({"OTEL_TRACES_EXPORTER": "nowhere"}) is None
    assert "nowhere" in caplog.text


def wait_until_idle(metrics: Metrics) -> None:
    """Waits until no call is in flight, which the last client knows a little before the server."""
    end = time.monotonic() + LIMIT
    while any(value for _, value in samples(metrics, "infosink_requests_in_flight")):
        assert time.monotonic() < end


def test_the_counters_equal_the_clients_count_after_a_concurrent_load(
    start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    models = [load_file(schema_1 / "gen.onnx"), load_file(schema_1 / "points-gen.onnx")]
    metrics = Metrics(SERVED_METHODS, lambda: models)
    stub = start_server(*models, interceptors=[ObservationInterceptor(metrics)]).stub
    names = [model.name for model in models]
    samples_of = {
        name: stub.Sample(SampleRequest(model=name, draw=Draw(count=3, seed=1)), timeout=LIMIT).batch.tensor
        for name in names
    }
    calls: list[tuple[str, str, str, int, grpc.Future]] = []
    for number in range(300):
        name, count = names[number % 2], 1 + number % 7
        draw = Draw(count=count, seed=number)
        match number % 5:
            case 0 | 1:
                call = stub.Sample.future(SampleRequest(model=name, draw=draw), timeout=LIMIT)
                calls.append(("Sample", name, "generator", count, call))
            case 2:
                call = stub.InferCodes.future(InferCodesRequest(model=name, tensor=samples_of[name]), timeout=LIMIT)
                calls.append(("InferCodes", name, "encoder", 3, call))
            case 3:
                draw = Draw(count=count, codes=[Code(category=10_000)])
                call = stub.Sample.future(SampleRequest(model=name, draw=draw), timeout=LIMIT)
                calls.append(("Sample", name, "generator", count, call))
            case 4:
                call = stub.GetModel.future(GetModelRequest(model="no such model"), timeout=LIMIT)
                calls.append(("GetModel", "", "", 0, call))
    codes: Counter[tuple[str, str]] = Counter({("infosink.v1.SamplingService/Sample", "OK"): 2})
    rows: Counter[tuple[str, str]] = Counter(dict.fromkeys([(name, "generator") for name in names], 3))
    for method, name, role, count, call in calls:
        call.exception(LIMIT)
        codes[f"infosink.v1.SamplingService/{method}", call.code().name] += 1
        if call.code() == grpc.StatusCode.OK:
            rows[name, role] += count
    for name in names:
        streamed = stub.StreamSamples(StreamSamplesRequest(model=name, draw=Draw(count=200)), timeout=LIMIT)
        rows[name, "generator"] += sum(len(part.batch.categories) for part in streamed)
        codes["infosink.v1.SamplingService/StreamSamples", streamed.code().name] += 1
    wait_until_idle(metrics)
    text = generate_latest(metrics.registry).decode()
    assert {code for _, code in codes} == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert values(text, "infosink_requests_total", "method", "code") == codes
    assert values(text, "infosink_rows_total", "model", "role") == rows
    assert values(text, "infosink_batch_rows_sum", "model", "role") == rows
    by_method: Counter[tuple[str]] = Counter()
    for (method, _), count in codes.items():
        by_method[(method,)] += count
    assert values(text, "infosink_request_seconds_count", "method") == by_method
    refused = sum(count for (_, code), count in codes.items() if code != "OK")
    assert sum(values(text, "infosink_rejected_total", "reason").values()) == refused
    queued = sum(count for (method, code), count in codes.items() if code == "OK")
    assert sum(values(text, "infosink_queue_seconds_count", "model", "role").values()) == queued
    runs = values(text, "infosink_batch_rows_count", "model", "role")
    assert runs == values(text, "infosink_compute_seconds_count", "model", "role")
    assert values(text, "infosink_queue_rows", "model", "role") == dict.fromkeys(rows, 0)
    described = values(text, "infosink_model_info", "model", "role", "provider", "checkpoint")
    assert described.keys() == {
        (model.name, role, "CPUExecutionProvider", model.checkpoint_sha256)
        for model in models
        for role in ("generator", "encoder")
    }


def test_the_rows_that_wait_are_shown_for_each_session(start_server: Callable, held_model: Callable) -> None:
    held = held_model()
    metrics = Metrics(SERVED_METHODS, lambda: [held.model])
    stub = start_server(held.model, interceptors=[ObservationInterceptor(metrics)]).stub

    def waiting() -> dict[str, float]:
        return {labels["role"]: rows for labels, rows in samples(metrics, "infosink_queue_rows")}

    held.generator.hold()
    calls = [stub.Sample.future(SampleRequest(draw=Draw(count=1)), timeout=LIMIT)]
    held.generator.wait_for_run()
    # What is being computed waits no longer.
    assert waiting() == {"generator": 0, "encoder": 0}
    calls += [stub.Sample.future(SampleRequest(draw=Draw(count=count)), timeout=LIMIT) for count in (3, 40)]
    end = time.monotonic() + LIMIT
    while waiting() != {"generator": 43, "encoder": 0}:
        assert time.monotonic() < end, waiting()
    held.generator.release()
    assert [len(call.result().batch.categories) for call in calls] == [1, 3, 40]
    assert waiting() == {"generator": 0, "encoder": 0}


def test_the_metrics_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    documented = set(re.findall(r"^\| `(infosink_\w+)` \|", page, re.MULTILINE))
    shown = Metrics([], list).registry.collect()
    suffixes = {"counter": "_total", "info": "_info"}
    assert documented == {
        family.name + suffixes.get(family.type, "") for family in shown if family.name.startswith("infosink_")
    }


def test_a_stream_that_its_client_leaves_counts_as_cancelled(
    start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    model = load_file(schema_1 / "gen.onnx")
    metrics = Metrics(SERVED_METHODS, lambda: [model])
    stub = start_server(model, interceptors=[ObservationInterceptor(metrics)]).stub
    stream = stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=1_000_000)), timeout=LIMIT)
    next(stream)
    stream.cancel()
    wait_until_idle(metrics)
    ((labels, count),) = samples(metrics, "infosink_requests_total")
    assert (labels["code"], count) == ("CANCELLED", 1)
    assert [value for _, value in samples(metrics, "infosink_queue_rows")] == [0, 0]


def test_a_served_process_logs_json_and_no_secrets_without_opentelemetry(
    serve: Callable, schema_1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    token, hostile = "correct-horse-battery-staple", 'x\n{"level":"ERROR"}\x1b[2J'
    (tmp_path / "tokens").write_text(token)
    (tmp_path / "tokens").chmod(0o600)
    process = serve(
        *("--model", schema_1 / "gen.onnx", "--port", "0", "--metrics-port", "0", "--token-file", tmp_path / "tokens"),
        *("--log-format", "json", "--log-level", "debug"),
    )
    address = process.ready()
    metrics_address = json.loads(process.ready_line)["message"].split("metrics on ")[1]
    told: Counter[tuple[str, str]] = Counter()
    with grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        authorized = (("authorization", f"Bearer {token}"),)
        for method, request, metadata in [
            (stub.Sample, SampleRequest(draw=Draw(count=2)), (*authorized, ("x-request-id", "mine"))),
            (stub.Sample, SampleRequest(model=hostile), authorized),
            (stub.GetModel, GetModelRequest(model=token), authorized),
            (stub.ListModels, ListModelsRequest(), (("authorization", "Bearer another-token-altogether"),)),
        ]:
            call = method.future(request, metadata=metadata, timeout=LIMIT)
            call.exception(LIMIT)
            told[dict(call.trailing_metadata())["x-request-id"], call.code().name] += 1
    assert told["mine", "OK"] == 1
    status, text = scrape(metrics_address)
    assert status == 200
    assert values(text, "infosink_rows_total", "model", "role") == {("tiny-images", "generator"): 2}
    labels = {
        value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for value in sample.labels.values()
    }
    assert not labels & {hostile, token}
    process.signal(signal.SIGTERM)
    code, out, err = process.end()
    assert code == 0, err
    assert token not in out + err
    assert "another-token-altogether" not in out + err
    lines = [json.loads(line) for line in [process.ready_line, *out.splitlines(), *err.splitlines()]]
    requests = Counter((line["request_id"], line["code"]) for line in lines if line["message"] == "request")
    assert requests == told
    assert any("infosink[tracing]" in line["message"] for line in lines if line["level"] == "WARNING")


def test_a_served_process_traces_where_the_environment_says_so(
    serve: Callable, schema_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0")
    with grpc.insecure_channel(process.ready()) as channel:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        SamplingServiceStub(channel).ListModels(ListModelsRequest(), metadata=(("traceparent", parent),), timeout=LIMIT)
    process.signal(signal.SIGTERM)
    code, out, err = process.end()
    assert code == 0, err
    span = json.loads(out[out.index("\n{") : out.index("\n}") + 2])
    assert span["name"] == "infosink.v1.SamplingService/ListModels"
    assert span["parent_id"] == "0xb7ad6b7169203331"
    assert span["context"]["trace_id"] == "0x0af7651916cd43dd8448eb211c80319c"
    assert span["resource"]["attributes"]["service.name"] == "infosink-serve"
