"""Sessions of onnxruntime: ended from outside, padded for a device, silent, and honest about where they run."""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from infosink.serving import shipped
from infosink.serving.cores import usable_cores
from infosink.serving.runtime.cuda import PADDED_SIZES, PaddedRuns, load_libraries
from infosink.serving.runtime.session import Array, Session, TerminatedError, Termination, finite_rows
from onnx import TensorProto, helper

ROWS = 64
LIMIT = 60
"""Seconds after which a test that waits has failed."""


@pytest.fixture(scope="module")
def feeds() -> dict[str, Array]:
    """What tiny-images reads for 64 samples."""
    random = np.random.default_rng(0)
    return {
        "category": random.integers(0, 2, ROWS),
        "style": random.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "noise": random.normal(size=(ROWS, 3)).astype(np.float32),
    }


def test_a_run_is_ended_in_its_midst_from_another_thread() -> None:
    session, termination = Session(endless(), Path("endless.onnx"), "cpu", 1), Termination()
    begun: queue.Queue[float] = queue.Queue()
    ended: queue.Queue[Exception | None] = queue.Queue()

    def run() -> None:
        begun.put(time.thread_time())
        try:
            session.run({"x": np.ones((1, 256), np.float32)}, ["y"], termination)
        except Exception as error:
            ended.put(error)
        else:
            ended.put(None)

    # Left behind where it does not end.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    # A hundred times what it takes to begin: by then it is multiplying.
    multiplying = begun.get(timeout=LIMIT) + 0.1
    clock, limit = time.pthread_getcpuclockid(thread.ident), time.monotonic() + LIMIT
    while time.clock_gettime(clock) < multiplying:
        assert thread.is_alive()
        assert time.monotonic() < limit
    termination.terminate()
    assert isinstance(ended.get(timeout=LIMIT), TerminatedError)


def test_a_run_that_was_ended_before_it_began_leaves_the_session_as_it_was() -> None:
    session = Session(identity(), Path("identity.onnx"), "cpu", 1)
    termination = Termination()
    termination.terminate()
    with pytest.raises(TerminatedError):
        session.run({"x": np.ones((1, 256), np.float32)}, ["y"], termination)
    assert session.run({"x": np.ones((1, 256), np.float32)}, ["y"], Termination())[0].sum() == 256


def test_a_failure_that_nobody_asked_for_is_no_termination() -> None:
    session = Session(identity(), Path("identity.onnx"), "cpu", 1)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run({"x": np.ones((1, 255), np.float32)}, ["y"], Termination())


def test_a_row_is_finite_if_it_is_in_every_output() -> None:
    sample = np.zeros((4, 1, 2, 2), np.float32)
    sample[1, 0, 1, 0] = np.nan
    scores = np.zeros((4, 3), np.float32)
    scores[3, 2] = -np.inf
    outputs = [sample, scores, np.zeros((4, 0), np.float32), np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.float32)]
    assert finite_rows(outputs).tolist() == [True, False, True, False]


def test_the_cpu_runs_as_many_rows_as_it_is_given(altered: Callable[..., Path], feeds: dict[str, Array]) -> None:
    path = altered("gen.onnx", add_the_number_of_rows)
    session = Session(path.read_bytes(), path, "cpu", 1)
    session.settle(feeds)
    plain = session.run(feeds, ["plain_sample"])[0]
    for rows in (1, 2, 3, 17, 33, 63, 64):
        few = {name: array[:rows] for name, array in feeds.items()}
        np.testing.assert_array_equal(session.run(few, ["sample"])[0], plain[:rows] + np.float32(rows))


def test_threads_that_have_nothing_to_run_take_no_processor_time() -> None:
    program = (
        "import pathlib, sys, threading, time, numpy\n"
        "from infosink.serving.runtime.session import Session\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "session = Session(path.read_bytes(), path, 'cpu', 4)\n"
        "kinds = {'tensor(int64)': numpy.int64, 'tensor(float)': numpy.float32}\n"
        "feeds = {name: numpy.zeros((64, *shape[1:]), kinds[kind]) for name, (kind, shape) in session.inputs.items()}\n"
        "for _ in range(5):\n"
        "    session.run(feeds, ['sample'])\n"
        "    before = time.process_time()\n"
        "    threading.Event().wait(0.1)\n"
        "    print(time.process_time() - before)\n"
    )
    path = Path(shipped.__file__).with_name("released") / "mnist-gen.onnx"
    ended = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60, check=True
    )
    # Three threads that spin take 70 milliseconds after each run; those that wait take a tenth of one.
    assert float(sorted(ended.stdout.split(), key=float)[2]) < 0.01


class FailingDevice:
    """What onnxruntime runs a session by, on a device that has gone."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def run(self, *_: object) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.EPFail("the device has gone")


def test_a_device_that_fails_in_a_run_is_not_left_for_another(
    schema_1: Path, feeds: dict[str, Array], capfd: pytest.CaptureFixture[str]
) -> None:
    """What onnxruntime would do by itself is to go on elsewhere, with words on stdout."""
    path = schema_1 / "gen.onnx"
    session = Session(path.read_bytes(), path, "cpu", 1)
    session._session._sess = FailingDevice(session._session._sess)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.EPFail):
        session.run(feeds, ["sample"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file", ["gen.onnx", "points-gen.onnx", "q.onnx", "points-q.onnx"])
def test_padded_runs_in_buffers_give_what_the_session_gives(
    schema_1: Path, feeds_of: Callable[[Session], dict[str, Array]], file: str
) -> None:
    session, runtime = opened(schema_1 / file)
    padded = PaddedRuns(runtime, "cpu", graphs=True)
    feeds, names = feeds_of(session), list(session.outputs)
    for settled in (False, True):
        if settled:
            padded.settle(feeds)
            assert padded.sizes == PADDED_SIZES
            assert padded.graphs
        kept = []
        for rows in (1, 3, 17, 64, 2):
            given = {name: array[-rows:] for name, array in feeds.items()}
            kept.append((padded.run(given, names[::-1], Termination().options), session.run(given, names[::-1])))
        # Looked at when all have run, since a run must not write over what an earlier one gave.
        for found, expected in kept:
            assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]
            assert [array.shape for array in found] == [array.shape for array in expected]


def test_a_padded_run_can_be_ended(schema_1: Path, feeds: dict[str, Array]) -> None:
    _, runtime = opened(schema_1 / "gen.onnx")
    termination = Termination()
    termination.terminate()
    with pytest.raises(Exception, match="terminate"):
        PaddedRuns(runtime, "cpu", graphs=False).run(feeds, ["sample"], termination.options)


def test_only_sizes_that_give_the_bytes_of_64_rows_are_used(
    altered: Callable[..., Path], feeds: dict[str, Array]
) -> None:
    session, runtime = opened(altered("gen.onnx", alter_below_16_rows))
    padded = PaddedRuns(runtime, "cpu", graphs=False)
    padded.settle(feeds)
    assert padded.sizes == (16, 32, 64)
    few = {name: array[:3] for name, array in feeds.items()}
    found = padded.run(few, ["sample"], Termination().options)[0]
    assert found.tobytes() == session.run(feeds, ["sample"])[0][:3].tobytes()
    assert found.tobytes() != session.run(few, ["sample"])[0].tobytes()


def test_a_device_on_which_a_place_matters_is_warned_of(
    altered: Callable[..., Path], feeds: dict[str, Array], caplog: pytest.LogCaptureFixture
) -> None:
    _, runtime = opened(altered("gen.onnx", number_the_rows))
    PaddedRuns(runtime, "cpu", graphs=False).settle(feeds)
    assert [record.getMessage() for record in caplog.records] == [
        "on this device a sample's bytes depend on its place in a batch: use --device cpu to repeat it"
    ]


OTHER_BYTES = "CUDA graphs are not used: they give other bytes than the same model without them"


class Replaying:
    """onnxruntime's session on a device that captures the first run of a graph, and then replays it in some way."""

    def __init__(self, session: onnxruntime.InferenceSession, replay: Callable[..., None]) -> None:
        self._session, self._replay = session, replay
        self.captured: list[str] = []
        self.replayed: list[str] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: object, options: onnxruntime.RunOptions) -> None:
        self.threads.add(threading.get_ident())
        graph = options.get_run_config_entry("gpu_graph_id")
        if graph == "-1":
            self._session.run_with_iobinding(binding, options)
        elif graph not in self.captured:
            self.captured.append(graph)
            self._session.run_with_iobinding(binding, options)
        else:
            self.replayed.append(graph)
            self._replay(self._session, binding, options)


def replay_faithfully(session: onnxruntime.InferenceSession, binding: object, options: object) -> None:
    session.run_with_iobinding(binding, options)


def replay_the_first_rows(*_: object) -> None:
    """What was computed when the graph was captured stands where it was written."""


def replay_the_first_64_rows(
    session: onnxruntime.InferenceSession, binding: object, options: onnxruntime.RunOptions
) -> None:
    if options.get_run_config_entry("gpu_graph_id") != "64":
        session.run_with_iobinding(binding, options)


def fail_to_replay(*_: object) -> None:
    raise RuntimeError("the graph was lost")


@pytest.mark.parametrize(
    ("replay", "warnings"),
    [
        (replay_faithfully, []),
        (replay_the_first_rows, [OTHER_BYTES]),
        (replay_the_first_64_rows, [OTHER_BYTES]),
        (fail_to_replay, ["CUDA graphs are not used: the graph was lost"]),
    ],
)
def test_graphs_are_replayed_only_if_they_give_what_the_model_gives(
    schema_1: Path,
    feeds: dict[str, Array],
    caplog: pytest.LogCaptureFixture,
    replay: Callable[..., None],
    warnings: list[str],
) -> None:
    session, runtime = opened(schema_1 / "gen.onnx")
    device = Replaying(runtime, replay)
    padded = PaddedRuns(device, "cpu", graphs=True)
    assert not padded.graphs
    padded.settle(feeds)
    assert padded.graphs == (not warnings)
    assert [record.getMessage() for record in caplog.records] == warnings
    assert padded.sizes == PADDED_SIZES
    device.replayed.clear()
    for rows in (3, 64, 1):
        given = {name: array[-rows:] for name, array in feeds.items()}
        found = padded.run(given, ["sample"], Termination().options)[0]
        assert found.tobytes() == session.run(given, ["sample"])[0].tobytes()
    assert device.replayed == ([] if warnings else ["4", "64", "1"])
    if not warnings:
        assert device.captured == [str(size) for size in PADDED_SIZES]
    # A graph belongs to the thread that captured it.
    assert len(device.threads) == 1


def test_graphs_that_nobody_wants_are_not_captured(schema_1: Path, feeds: dict[str, Array]) -> None:
    device = Replaying(opened(schema_1 / "gen.onnx")[1], replay_faithfully)
    padded = PaddedRuns(device, "cpu", graphs=False)
    padded.settle(feeds)
    padded.run(feeds, ["sample"], Termination().options)
    assert (padded.graphs, device.captured) == (False, [])


@pytest.mark.parametrize(
    ("device", "out", "err"),
    [
        ("cuda", "--device cuda: onnxruntime could not use the CUDA device: ", ""),
        ("auto", "CPUExecutionProvider", "WARNING:onnxruntime could not use the CUDA device: "),
    ],
)
def test_a_device_that_onnxruntime_cannot_use_is_not_passed_over_in_silence(
    schema_1: Path, device: str, out: str, err: str
) -> None:
    """The driver is made to promise a device, which is then hidden."""
    program = (
        "import sys, pathlib, logging; logging.basicConfig(format='%(levelname)s:%(message)s')\n"
        "from infosink.serving.runtime import session as runtime\n"
        "runtime.cuda_devices = lambda: 1\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    for _ in range(2):\n"
        "        session = runtime.Session(path.read_bytes(), path, sys.argv[2], 1)\n"
        "    print(session.execution_provider)\n"
        "except runtime.StartupError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, schema_1 / "gen.onnx", device],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.startswith(out)
    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr.startswith(err)
    assert len(ended.stderr.splitlines()) == (1 if err else 0)


def test_libraries_that_are_missing_are_returned_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert all(line.startswith("Failed to load") for line in load_libraries())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "6400000000 100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_s_share_of_the_cores_is_heeded(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


@pytest.fixture
def feeds_of(feeds: dict[str, Array]) -> Callable[[Session], dict[str, Array]]:
    """64 rows of what a committed model reads."""

    def make(session: Session) -> dict[str, Array]:
        random = np.random.default_rng(1)
        shapes = {name: (ROWS, *shape[1:]) for name, (_, shape) in session.inputs.items()}
        return {
            name: feeds["category"] if name == "category" else random.normal(size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }

    return make


def opened(path: Path) -> tuple[Session, onnxruntime.InferenceSession]:
    """A file's session, and onnxruntime's own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return (
        Session(path.read_bytes(), path, "cpu", 1),
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]),
    )


def chain(nodes: Iterator[onnx.NodeProto]) -> bytes:
    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, [256, 256], np.eye(256, dtype=np.float32).ravel())
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [value("x", TensorProto.FLOAT, ["batch", 256])],
        [value("y", TensorProto.FLOAT, ["batch", 256])],
        [weight],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def identity() -> bytes:
    return chain(iter([helper.make_node("MatMul", ["x", "w"], ["y"])]))


def endless() -> bytes:
    """A model that multiplies matrices for hours."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["more_still"]),
            helper.make_node("MatMul", ["carried", "w"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, ["batch", 256]),
        ],
        [
            helper.make_tensor_value_info("more_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 256]),
        ],
    )
    count = helper.make_node("Constant", [], ["count"], value_int=2**40)
    return chain(iter([count, helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)]))


def alter_below_16_rows(model: onnx.ModelProto) -> None:
    """The sample plus 1 where the batch has fewer than 16 rows."""
    nodes = [
        helper.make_node("Shape", ["noise"], ["rows"], start=0, end=1),
        helper.make_node("Constant", [], ["sixteen"], value_ints=[16]),
        helper.make_node("Less", ["rows", "sixteen"], ["few"]),
        helper.make_node("Cast", ["few"], ["extra"], to=TensorProto.FLOAT),
    ]
    add_to_sample(model, nodes)


def add_the_number_of_rows(model: onnx.ModelProto) -> None:
    nodes = [
        helper.make_node("Shape", ["noise"], ["rows"], start=0, end=1),
        helper.make_node("Cast", ["rows"], ["extra"], to=TensorProto.FLOAT),
    ]
    add_to_sample(model, nodes)
    (sample,) = (output for output in model.graph.output if output.name == "sample")
    plain = model.graph.output.add()
    plain.CopyFrom(sample)
    plain.name = "plain_sample"


def number_the_rows(model: onnx.ModelProto) -> None:
    """The sample plus its place in the batch."""
    nodes = [
        helper.make_node("Cast", ["category"], ["category_float"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["axis"], value_int=0),
        helper.make_node("Mul", ["category_float", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("CumSum", ["ones", "axis"], ["places"]),
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, 1, 1, 1]),
        helper.make_node("Reshape", ["places", "shape"], ["extra"]),
    ]
    add_to_sample(model, nodes)


def add_to_sample(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["plain_sample" if name == "sample" else name for name in node.output]
        node.input[:] = ["plain_sample" if name == "sample" else name for name in node.input]
    graph.node.extend([*nodes, helper.make_node("Add", ["plain_sample", "extra"], ["sample"])])
