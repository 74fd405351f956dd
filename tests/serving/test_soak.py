"""What was used is given back: after many clients that died and many models that went, the process is as it was."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import grpc
import onnx
import pytest
from infosink.serving import shipped
from infosink.v1.sampling_service_pb2 import Draw, GetModelRequest, InferCodesRequest, SampleRequest
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_UINT8, Tensor

pytestmark = pytest.mark.slow

LIMIT = 60
WARM_UP = 4
ROUNDS = 16
STREAMS = 6
WAITING = 8
CLIENTS = 2
"""That die at the same time, each with as many streams and unary calls under way."""

DYING_CLIENT = """
import sys, threading
import grpc
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32, Draw, InferCodesRequest, SampleRequest, StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub

address, streams, waiting = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stub = SamplingServiceStub(grpc.insecure_channel(address))
drawing = SampleRequest(draw=Draw(count=15000), encoding=ENCODING_FLOAT32)
inferring = InferCodesRequest(tensor=stub.Sample(drawing).batch.tensor)
open_streams = [
    stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=1000000), encoding=ENCODING_FLOAT32))
    for _ in range(streams)
]
for stream in open_streams:
    next(stream)
calls = [stub.Sample.future(drawing) for _ in range(waiting // 2)]
calls += [stub.InferCodes.future(inferring) for _ in range(waiting - len(calls))]
print("under way", flush=True)
for stream in open_streams:
    threading.Thread(target=list, args=(stream,)).start()
"""


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def by(cls, process: int) -> "Held":
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return cls(
            resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
            descriptors=len(list(Path(f"/proc/{process}/fd").iterdir())),
            threads=int(status["Threads"]),
        )


class Soaked:
    """A server, and what it holds."""

    def __init__(self, process: object) -> None:
        self.process = process
        self.address = process.ready()
        self._metrics = "http://" + process.ready_line.rpartition(" on ")[2].strip() + "/metrics"
        self.channel = grpc.insecure_channel(self.address)
        self.stub = SamplingServiceStub(self.channel)

    def in_flight(self) -> int:
        with urlopen(self._metrics, timeout=LIMIT) as reply:
            lines = reply.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("infosink_requests_in_flight{"))

    def at_rest(self) -> Held:
        """What it holds once every call has ended, and again answers one."""
        deadline = time.monotonic() + LIMIT
        while self.in_flight():
            assert time.monotonic() < deadline, "calls of clients that have gone are still open"
        assert len(self.stub.Sample(SampleRequest(draw=Draw(count=64))).batch.categories) == 64
        return Held.by(self.process.popen.pid)

    def ends_well(self) -> str:
        self.process.signal(signal.SIGTERM)
        code, _, err = self.process.end()
        assert code == 0
        return err


@pytest.fixture
def soak(serve: Callable) -> Iterator[Callable[..., Soaked]]:
    servers: list[Soaked] = []

    def start(*arguments: str | Path) -> Soaked:
        servers.append(Soaked(serve("--port", "0", "--metrics-port", "0", "--threads", "1", *arguments)))
        return servers[-1]

    yield start
    for server in servers:
        server.channel.close()


def die_under_way(address: str) -> None:
    """Has clients killed while they stream, send and wait."""
    program = [sys.executable, "-c", DYING_CLIENT, address, str(STREAMS), str(WAITING)]
    clients = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)]
    for client in clients:
        assert client.stdout.readline() == "under way\n"
    for client in clients:
        client.kill()
        client.communicate(timeout=LIMIT)


def assert_flat(held: Sequence[Held], growth: float) -> None:
    """Compares the last eight states with the first eight after the warm-up.

    By the least of each: what the allocator keeps for later comes and goes, what is lost is never there again.
    """
    first, last = held[WARM_UP : WARM_UP + 8], held[-8:]
    assert min(one.descriptors for one in last) <= min(one.descriptors for one in first)
    # A pool makes one of its few threads only when two tasks coincide; one lost in every second round would be 4.
    assert min(one.threads for one in last) <= min(one.threads for one in first) + 2
    assert min(one.resident_bytes for one in last) - min(one.resident_bytes for one in first) < growth


def test_clients_killed_while_they_are_answered(soak: Callable, schema_1: Path) -> None:
    server = soak("--model", schema_1 / "gen.onnx", "--log-level", "error")
    held = []
    for _ in range(WARM_UP + ROUNDS):
        die_under_way(server.address)
        held.append(server.at_rest())
    # Each round has 8 requests of 3.8 MB, and their replies, under way. One of them lost in every second round would
    # make 15 MB in the 8 rounds between the two.
    assert_flat(held, growth=15e6)
    assert server.ends_well() == ""


def test_models_reloaded_again_and_again(soak: Callable, with_metadata: Callable, tmp_path: Path) -> None:
    for name in ("mnist-gen.onnx", "mnist-q.onnx"):
        shutil.copy(Path(shipped.__file__).with_name("released") / name, tmp_path)
    server = soak("--model", tmp_path)
    held = []
    for number in range(WARM_UP + ROUNDS):
        for path in tmp_path.iterdir():
            model = onnx.load(path)
            with_metadata(checkpoint_sha256=f"{number:064x}")(model)
            onnx.save(model, path)
        # The second says when all of the first is over.
        for outcome in ("mnist is now served", "no model has changed"):
            server.process.signal(signal.SIGHUP)
            assert outcome in server.process.popen.stderr.readline()
        held.append(server.at_rest())
    # A pair takes 17 MB: two lost in 8 rounds would make more.
    assert_flat(held, growth=30e6)


def test_what_is_refused_leaves_nothing(soak: Callable, schema_1: Path) -> None:
    """Ten times what is let in at once, asked for whether or not what was asked for before has been answered."""
    server = soak("--model", schema_1 / "gen.onnx", "--log-level", "error", "--queue-rows", "128")
    most = server.stub.GetModel(GetModelRequest()).served_model.limits.inferred_samples
    # A message of a megabyte.
    request = InferCodesRequest(tensor=Tensor(data_type=DATA_TYPE_UINT8, shape=[most, 8, 8, 1], data=bytes(most * 64)))
    codes: Counter[grpc.StatusCode] = Counter()
    held = []
    for _ in range(200):
        calls = [server.stub.InferCodes.future(request, timeout=LIMIT) for _ in range(10)]
        codes.update(call.code() for call in calls)
        held.append(server.at_rest())
    assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    refused_bytes = codes[grpc.StatusCode.RESOURCE_EXHAUSTED] * request.ByteSize()
    assert refused_bytes > 1e9
    # Large messages leave gaps between them, which makes some fifty million bytes more or less from round to round.
    first, last = held[40:80], held[-40:]
    assert min(one.resident_bytes for one in last) - min(one.resident_bytes for one in first) < 0.1 * refused_bytes
    assert min(one.descriptors for one in last) <= min(one.descriptors for one in first)
    assert server.ends_well() == ""
