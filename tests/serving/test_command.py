"""infosink-serve as a process: its options, its words, its exit codes and its signals."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import onnxruntime
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from infosink.serving import command
from infosink.serving.process import queue_bounds
from infosink.serving.runtime.session import cuda_devices
from infosink.serving.settings import Settings
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    ListModelsRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import Tensor

SAMPLES = 100_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_life_without_noise(serve: Callable, schema_1: Path, number: signal.Signals) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--device", "cpu")
    address = process.ready()
    assert re.fullmatch(
        r"infosink-serve: SERVING tiny-images \(4 categories, 2 styles, codes inferred\) on 127\.0\.0\.1:[0-9]+, "
        rf"CPUExecutionProvider, onnxruntime {re.escape(onnxruntime.__version__)}\n",
        process.ready_line,
    )
    with grpc.insecure_channel(address) as channel:
        assert HealthStub(channel).Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING
        stub = SamplingServiceStub(channel)
        assert stub.GetModel(GetModelRequest()).served_model.limits.stream_samples == 1_000_000
        assert len(stub.Sample(SampleRequest(draw=Draw(count=2))).batch.categories) == 2
        leave_in_the_middle(channel)
        process.signal(number)
        code, out, err = process.end()
    assert code == 0
    assert out == "infosink-serve: draining, for at most 30 seconds\ninfosink-serve: stopped\n"
    assert err == ""


def leave_in_the_middle(channel: grpc.Channel) -> None:
    """Opens one call of each kind that stays open, and cancels it after its first answer."""
    more = threading.Event()

    def ask_and_wait() -> Iterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(list_services="")
        more.wait()

    request = StreamSamplesRequest(draw=Draw(count=1_000_000), encoding=ENCODING_FLOAT32)
    calls = [
        HealthStub(channel).Watch(HealthCheckRequest()),
        ServerReflectionStub(channel).ServerReflectionInfo(ask_and_wait()),
        SamplingServiceStub(channel).StreamSamples(request),
    ]
    for call in calls:
        next(call)
        call.cancel()
    more.set()


def test_the_device_is_found_without_noise(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0")
    process.ready()
    assert ("CUDAExecutionProvider" if cuda_devices() else "CPUExecutionProvider") in process.ready_line
    process.signal(signal.SIGTERM)
    assert process.end()[2] == ""


def test_a_restarted_server_gives_the_same_bytes(serve: Callable, schema_1: Path) -> None:
    replies = []
    for threads in ("1", "2"):
        process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--device", "cpu", "--threads", threads)
        with grpc.insecure_channel(process.ready()) as channel:
            request = SampleRequest(draw=Draw(count=200, seed=5), encoding=ENCODING_FLOAT32)
            replies.append(SamplingServiceStub(channel).Sample(request).batch)
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
    assert replies[0] == replies[1]


def test_several_models_by_name(serve: Callable, schema_1: Path, refusal: Callable, tmp_path: Path) -> None:
    alone = tmp_path / "alone=1.onnx"
    alone.write_bytes((schema_1 / "gen.onnx").read_bytes())
    models = ["--model", f"digits={schema_1 / 'gen.onnx'}", "--model", schema_1 / "points-gen.onnx", "--model", alone]
    process = serve(*models, "--port", "0", "--max-samples", "7")
    with grpc.insecure_channel(process.ready()) as channel:
        stub = SamplingServiceStub(channel)
        served = stub.ListModels(ListModelsRequest()).served_models
        assert [one.model.name for one in served] == ["digits", "tiny-points", "tiny-images"]
        assert [one.infers_codes for one in served] == [True, True, False]
        assert stub.Sample(SampleRequest(model="digits", draw=Draw(count=1))).batch.model == "digits"
        code, _ = refusal(stub.InferCodes, InferCodesRequest(model="tiny-images", tensor=Tensor()))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        _, message = refusal(stub.StreamSamples, StreamSamplesRequest(draw=Draw(count=8)))
        assert "over the limit of 7" in message


def test_an_idle_server_waits_for_company_as_long_as_it_is_told(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--metrics-port", "0", "--batch-delay", "0.01")
    with grpc.insecure_channel(process.ready()) as channel:
        SamplingServiceStub(channel).Sample(SampleRequest(draw=Draw(count=1)))
    metrics, end = f"http://{process.ready_line.rpartition(' on ')[2].strip()}/metrics", time.monotonic() + 60
    waited: list[bytes] = []
    # The client knows of a call's end a little before the server has counted it.
    while not waited:
        assert time.monotonic() < end
        with urlopen(metrics, timeout=60) as reply:
            waited = re.findall(rb"^infosink_queue_seconds_sum{.*} (.*)$", reply.read(), re.MULTILINE)
    assert float(*waited) > 0.0099
    assert queue_bounds(Settings(batch_delay=0.004)).delay == 0.004
    assert queue_bounds(Settings()).delay == 0


def test_what_ships_is_served_where_nothing_is_named(serve: Callable) -> None:
    process = serve("--port", "0", "--device", "cpu")
    with grpc.insecure_channel(process.ready()) as channel:
        stub = SamplingServiceStub(channel)
        served = stub.ListModels(ListModelsRequest()).served_models
        assert [(one.model.name, one.infers_codes) for one in served] == [("mnist", True), ("gaussians", True)]
        assert all(one.model.name in process.ready_line for one in served)
        assert all(stub.GetModel(GetModelRequest(model=one.model.name)).card for one in served)
        digits = [Code(label=str(digit)) for digit in range(10)]
        batch = stub.Sample(SampleRequest(draw=Draw(count=10, codes=digits))).batch
        assert (batch.model, list(batch.labels)) == ("mnist", [str(digit) for digit in range(10)])
        codes = stub.InferCodes(InferCodesRequest(tensor=batch.tensor))
        assert sum(read == asked for read, asked in zip(codes.labels, batch.labels, strict=True)) >= 9
    assert sum(file.stat().st_size for file in Path(command.__file__).parent.glob("released/*")) < 20e6


def test_an_installation_without_what_ships_asks_for_a_model(tmp_path: Path) -> None:
    package = tmp_path / "infosink" / "serving"
    shutil.copytree(Path(command.__file__).parent, package, ignore=shutil.ignore_patterns("released"))
    ended = subprocess.run(
        [sys.executable, "-c", "from infosink.serving.command import main; main([])"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: this installation lacks the models that ship with infosink")
    assert "--model" in ended.stderr


def test_calls_under_way_end_before_the_server(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0")
    with grpc.insecure_channel(process.ready()) as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        assert next(watch).status == HealthCheckResponse.SERVING
        stub = SamplingServiceStub(channel)
        stream = stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=SAMPLES), encoding=ENCODING_FLOAT32))
        drawn = len(next(stream).batch.categories)
        process.signal(signal.SIGTERM)
        assert [response.status for response in watch] == [HealthCheckResponse.NOT_SERVING]
        assert process.line() == "infosink-serve: draining, for at most 30 seconds\n"
        with grpc.insecure_channel(process.ready_line.split(" on ")[1].split(",")[0]) as later:
            with pytest.raises(grpc.RpcError) as caught:
                SamplingServiceStub(later).GetModel(GetModelRequest(), timeout=10)
            # CANCELLED is what gRPC says to a call that meets a listener in the act of closing.
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert process.popen.poll() is None
        drawn += sum(len(reply.batch.categories) for reply in stream)
        assert drawn == SAMPLES
        assert process.end() == (0, "infosink-serve: stopped\n", "")


def test_calls_over_the_grace_are_cut(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--grace", "0")
    with grpc.insecure_channel(process.ready()) as channel:
        request = StreamSamplesRequest(draw=Draw(count=1_000_000), encoding=ENCODING_FLOAT32)
        stream = SamplingServiceStub(channel).StreamSamples(request)
        next(stream)
        process.signal(signal.SIGTERM)
        assert process.end() == (
            0,
            "infosink-serve: draining, for at most 0 seconds\ninfosink-serve: stopped\n",
            "",
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_second_signal_ends_at_once(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--grace", "3600")
    with grpc.insecure_channel(process.ready()) as channel:
        request = StreamSamplesRequest(draw=Draw(count=1_000_000), encoding=ENCODING_FLOAT32)
        stream = SamplingServiceStub(channel).StreamSamples(request)
        next(stream)
        process.signal(signal.SIGTERM)
        assert "draining" in process.line()
        process.signal(signal.SIGTERM)
        assert process.end() == (128 + signal.SIGTERM, "", "")


def fails(serve: Callable, *arguments: str | bytes | Path) -> tuple[int, str]:
    """Exit code and stderr of a command that must not come to serve."""
    code, out, err = serve(*arguments).end()
    assert out == ""
    assert "Traceback" not in err
    return code, err


def test_a_reader_that_has_gone_does_not_keep_the_server_from_draining(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0")
    process.ready()
    process.popen.stdout.close()
    process.signal(signal.SIGTERM)
    code, _, err = process.end()
    assert (code, err) == (0, "")


def test_a_signal_while_the_server_goes_to_wait_is_heeded() -> None:
    program = """
import os, signal, sys, threading
from infosink.serving.signals import StopSignals

def strike(frame, event, argument):
    # Within Event.wait, which holds the event's lock.
    if "signaled" in frame.f_locals:
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGTERM)
    return strike

stop = threading.Event()
StopSignals().stop_with(stop.set)
sys.settrace(strike)
stop.wait()
print("heeded")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "heeded\n", "")


def test_a_port_in_use_is_refused(serve: Callable, schema_1: Path) -> None:
    address = serve("--model", schema_1 / "gen.onnx", "--port", "0").ready
    port = address().rpartition(":")[2]
    code, err = fails(serve, "--model", schema_1 / "gen.onnx", "--port", port)
    assert code == 1
    assert re.fullmatch(rf"Error: cannot listen on 127\.0\.0\.1:{port}: the port is in use .* --port or --host\n", err)


def test_a_port_of_another_program_is_refused(serve: Callable, schema_1: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, err = fails(serve, "--model", schema_1 / "gen.onnx", "--port", str(other.getsockname()[1]))
    assert code == 1
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere.onnx"], "nowhere.onnx does not exist"),
        (["--model", "{}/q.onnx"], "is the encoder of a model"),
        (["--model", "{}/gen.onnx", "--encoder", "{}/points-q.onnx"], "of another checkpoint"),
        (["--model", "{}/gen.onnx", "--encoder", "{}/nowhere.onnx"], "does not exist"),
        (["--model", __file__], "is not a model onnxruntime"),
        (["--model", "a b={}/gen.onnx"], '"a b" cannot name a model'),
        (["--model", "x" * 300 + "={}/gen.onnx"], 'x…" cannot name a model'),
        (["--model", "x" * 300], "cannot be read: File name too long"),
        (["--model", "{}/.."], "holds no model"),
        (["--model", "x={}"], 'is a folder, and the name "x" goes with one file'),
        (["--model", "{}", "--encoder", "{}/q.onnx"], "is a folder, and --encoder goes with one file"),
        (["--model", "{}/gen.onnx", "--encoder", "{}"], "is a folder"),
        (["--model", "/dev/null"], "is a pipe or a device"),
        (["--model", "{}/gen.onnx", "--model", "{}/gen.onnx"], "two models are named tiny-images"),
        (["--model", "{}/gen.onnx", "--model", "tiny-images={}/points-gen.onnx"], "two models are named tiny-images"),
    ],
)
def test_what_cannot_be_served_ends_in_one_line(
    serve: Callable, schema_1: Path, arguments: list[str], words: str
) -> None:
    code, err = fails(serve, *(argument.format(schema_1) for argument in arguments), "--port", "0")
    assert code == 1
    assert err.startswith("Error: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoder", "{}/q.onnx"], "with one --model"),
        (["--model", "{}/gen.onnx", "--port", "65536"], "65536"),
        (["--model", "{}/gen.onnx", "--device", "tpu"], "tpu"),
        (["--model", "{}/gen.onnx", "--threads", "0"], "0"),
        (["--model", "{}/gen.onnx", "--max-samples", "0"], "0"),
        (["--model", "{}/gen.onnx", "--grace", "-1"], "-1"),
        (["--model", "{}/gen.onnx", "--grace", "nan"], "nan is no number of seconds"),
        (["--model", "{}/gen.onnx", "--grace", "inf"], "inf"),
        (["--model", "{}/gen.onnx", "--host", ""], "'' is no host name or IP address"),
        (["--model", "{}/gen.onnx", "--host", "local host"], "'local host' is no host name or IP address"),
        (["--model", "{}/gen.onnx", "--host", b"\xff"], r"'\udcff' is no host name or IP address"),
        (["--model", "={}/gen.onnx"], "[NAME=]PATH"),
        (["--model", "{}/gen.onnx", "--model", "{}/points-gen.onnx", "--encoder", "{}/q.onnx"], "with one --model"),
    ],
)
def test_usage_errors_exit_with_2(serve: Callable, schema_1: Path, arguments: list[str | bytes], words: str) -> None:
    given = [argument.format(schema_1) if isinstance(argument, str) else argument for argument in arguments]
    code, err = fails(serve, *given)
    assert code == 2
    assert words in err


def test_a_pipe_is_not_waited_for(serve: Callable, tmp_path: Path) -> None:
    pipe = tmp_path / "gen.onnx"
    os.mkfifo(pipe)
    code, err = fails(serve, "--model", pipe, "--port", "0")
    assert code == 1
    assert f"{pipe} is a pipe or a device" in err


def test_cuda_that_does_not_come_into_effect_is_refused(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--device", "cuda")
    if cuda_devices():
        assert "CUDAExecutionProvider" in process.ready() + process.ready_line
        return
    code, out, err = process.end()
    assert (code, out) == (1, "")
    assert err == "Error: --device cuda: no CUDA device was found: use --device cpu\n"


def test_a_public_address_is_warned_of(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--host", "0.0.0.0")
    address = process.ready()
    process.signal(signal.SIGTERM)
    code, _, err = process.end()
    assert code == 0
    assert err == (
        f"infosink-serve: WARNING: {address} is reachable from other machines, without authentication or encryption\n"
    )


def test_help_and_version_are_quick(serve: Callable) -> None:
    code, out, err = serve("--help").end()
    assert (code, err) == (0, "")
    assert "--max-samples" in out
    assert "[default: the models that ship with infosink: mnist, gaussians]" in " ".join(out.split())
    code, out, err = serve("--version").end()
    assert (code, err) == (0, "")
    assert re.search(r"version [0-9]+\.[0-9]+", out)


def test_a_missing_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from infosink.serving.command import main\n"
        "main(['--model', 'gen.onnx'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        "Error: infosink-serve needs onnxruntime-gpu: install it with pip install 'infosink[serving]'\n"
    )
