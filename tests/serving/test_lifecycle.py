"""From the first signal to the last answer: what clients see of a server that starts, drains and ends."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    GetModelRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

LIMIT = 60
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
ALONE = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
"""A channel with a connection of its own that tries nothing again."""


class ClosedLoop:
    """Clients that each ask anew as soon as they are answered, until `refusals` of their calls have failed."""

    def __init__(self, address: str, clients: int, refusals: int) -> None:
        self._address, self._refusals = address, refusals
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.answered = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(clients)
        self._clients = [self._pool.submit(self._ask, number) for number in range(clients)]

    def _ask(self, number: int) -> list[grpc.StatusCode]:
        codes: list[grpc.StatusCode] = []
        with grpc.insecure_channel(self._address, options=ALONE) as channel:
            stub = SamplingServiceStub(channel)
            while sum(code != grpc.StatusCode.OK for code in codes) < self._refusals:
                try:
                    if number % 4 == 3:
                        drawn = sum(len(reply.batch.categories) for reply in stub.StreamSamples(streaming(200)))
                    else:
                        drawn = len(stub.Sample(sampling(200)).batch.categories)
                    codes.append(grpc.StatusCode.OK if drawn == 200 else grpc.StatusCode.DATA_LOSS)
                except grpc.RpcError as error:
                    codes.append(error.code())
                self.answered.release()
        return codes

    def end(self) -> Counter[grpc.StatusCode]:
        """How the calls of all clients ended."""
        codes = Counter(code for client in self._clients for code in client.result(LIMIT))
        self._pool.shutdown()
        return codes


def sampling(count: int) -> SampleRequest:
    return SampleRequest(draw=Draw(count=count, seed=1))


def streaming(count: int) -> StreamSamplesRequest:
    return StreamSamplesRequest(draw=Draw(count=count, seed=1), encoding=ENCODING_FLOAT32)


def drain_under_load(server: Any) -> None:
    """Drains a server whose clients never stop asking."""
    load = ClosedLoop(server.address, clients=8, refusals=3)
    for _ in range(50):
        assert load.answered.acquire(timeout=LIMIT)
    ended = server.drain(LIMIT)
    codes = load.end()
    assert ended.wait(LIMIT)
    # No call is cut, and each that is not answered can be tried again elsewhere.
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes[grpc.StatusCode.OK] >= 50
    assert codes[grpc.StatusCode.UNAVAILABLE] == 8 * 3


def test_draining_under_load_loses_nothing(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    drain_under_load(start_server(load_file(schema_1 / "gen.onnx")))


@pytest.mark.slow
def test_draining_a_hundred_times_loses_nothing(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    for _ in range(100):
        model = load_file(schema_1 / "gen.onnx")
        drain_under_load(start_server(model))
        model.close()


def test_what_was_let_in_is_answered_and_what_comes_later_refused(start_server: Callable, held_model: Callable) -> None:
    held = held_model()
    server = start_server(held.model)
    held.generator.hold()
    first = server.stub.Sample.future(sampling(3))
    held.generator.wait_for_run()
    second = server.stub.Sample.future(sampling(4))
    while server.server.admission.rows < 7:
        HealthStub(server.channel).Check(HealthCheckRequest())
    watch = HealthStub(server.channel).Watch(HealthCheckRequest())
    assert next(watch).status == SERVING
    ended = server.drain(3600)
    assert [reply.status for reply in watch] == [NOT_SERVING]
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.GetModel(GetModelRequest(), timeout=LIMIT)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not ended.is_set()
    held.generator.release()
    assert [len(call.result(LIMIT).batch.categories) for call in (first, second)] == [3, 4]
    assert ended.wait(LIMIT)


def test_a_lame_duck_says_so_and_accepts(serve: Callable, schema_1: Path) -> None:
    arguments = ["--model", schema_1 / "gen.onnx", "--port", "0", "--health-port", "0", "--lame-duck", "3600"]
    process = serve(*arguments)
    with grpc.insecure_channel(process.ready()) as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        assert next(watch).status == SERVING
        process.signal(signal.SIGTERM)
        assert process.line() == "infosink-serve: NOT_SERVING; calls are accepted for 3600 seconds more\n"
        assert next(watch).status == NOT_SERVING
        assert HealthStub(channel).Check(HealthCheckRequest()).status == NOT_SERVING
        assert len(SamplingServiceStub(channel).Sample(sampling(3)).batch.categories) == 3
        with grpc.insecure_channel(process.ready_line.split(" on ")[1].split(",")[0], options=ALONE) as later:
            assert len(SamplingServiceStub(later).Sample(sampling(3)).batch.categories) == 3
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 128 + signal.SIGTERM


def test_a_lame_duck_ends_by_itself(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--lame-duck", "0.5", "--grace", "3600")
    with grpc.insecure_channel(process.ready()) as channel:
        stub = SamplingServiceStub(channel)
        watch = HealthStub(channel).Watch(HealthCheckRequest(), timeout=LIMIT)
        assert next(watch).status == SERVING
        stub.Sample(sampling(1))
        process.signal(signal.SIGTERM)
        assert process.line() == "infosink-serve: NOT_SERVING; calls are accepted for 0.5 seconds more\n"
        assert next(watch).status == NOT_SERVING
        assert len(stub.Sample(sampling(3)).batch.categories) == 3
        assert process.line() == "infosink-serve: draining, for at most 3600 seconds\n"
        assert list(watch) == []
        assert process.end() == (0, "infosink-serve: stopped\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_models_load_ends_in_a_sentence(
    serve: Callable, schema_1: Path, number: signal.Signals, code: int
) -> None:
    models = [argument for name in range(400) for argument in ("--model", f"m{name}={schema_1 / 'gen.onnx'}")]
    process = serve(*models, "--port", "0", "--device", "cpu", "--log-level", "debug")
    log = iter(process.popen.stderr.readline, "")
    assert any("loading" in line for line in log)
    process.signal(number)
    ended, out, err = process.end()
    assert (ended, out) == (code, "")
    assert err.splitlines()[-1] == "Error: interrupted while it was starting; nothing was served"
    assert "Traceback" not in err


def test_to_hang_up_while_models_load_has_them_looked_at_again(serve: Callable, schema_1: Path) -> None:
    models = [argument for name in range(12) for argument in ("--model", f"m{name}={schema_1 / 'gen.onnx'}")]
    process = serve(*models, "--port", "0", "--device", "cpu", "--log-level", "debug")
    assert "loading" in process.error_line()
    process.signal(signal.SIGHUP)
    process.ready()
    while "no model has changed" not in (line := process.error_line()):
        assert "loading" in line
    process.signal(signal.SIGTERM)
    assert process.end() == (0, "infosink-serve: draining, for at most 30 seconds\ninfosink-serve: stopped\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_right_after_the_ready_line_is_heeded(serve: Callable, schema_1: Path, number: signal.Signals) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--device", "cpu")
    process.ready()
    process.signal(number)
    code, out, err = process.end()
    assert (code, err) == (0, "")
    assert out.endswith("infosink-serve: stopped\n")


def test_a_batch_that_forms_while_the_server_drains_is_answered(start_server: Callable, held_model: Callable) -> None:
    held = held_model(delay=0.3)
    server = start_server(held.model)
    waiting = server.stub.Sample.future(sampling(20))
    while not (held.model.generator.depth() or held.generator.runs):
        HealthStub(server.channel).Check(HealthCheckRequest())
    assert server.drain(3600).wait(LIMIT)
    assert len(waiting.result(LIMIT).batch.categories) == 20


def test_idle_streams_do_not_keep_a_server(serve: Callable, schema_1: Path) -> None:
    asked = threading.Event()

    def ask_and_wait() -> Iterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(list_services="")
        asked.wait()

    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--grace", "3600")
    with grpc.insecure_channel(process.ready()) as channel:
        idle = [HealthStub(channel).Watch(HealthCheckRequest()), HealthStub(channel).Watch(HealthCheckRequest())]
        idle.append(ServerReflectionStub(channel).ServerReflectionInfo(ask_and_wait()))
        for call in idle:
            next(call)
        process.signal(signal.SIGTERM)
        code, _, err = process.end()
        asked.set()
    assert code == 0
    assert "Traceback" not in err
