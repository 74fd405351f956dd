"""The arithmetic and the load generator behind the server's figures, and a run of the whole with tiny counts."""

import asyncio
import base64
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
LIMIT = 120
"""Seconds after which what has not ended has failed."""


@pytest.fixture(scope="module")
def part() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the benchmark, which is not installed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(REPOSITORY)
        yield lambda name: importlib.import_module(f"benchmarks.serving.{name}")


@pytest.fixture(scope="module")
def echo_address(part) -> Iterator[str]:
    processes = part("processes")
    with processes.started(processes.module("echo", "asyncio", "--work", "20")) as server:
        yield server.address


@pytest.fixture(scope="module")
def echo_job(part, echo_address) -> Callable[..., object]:
    load, echo = part("load"), part("echo")
    request = base64.b64encode(echo.echo_request(12, 1000)).decode()

    def make(path: str = echo.BYTES, **how: object) -> object:
        return load.Job("grpc", echo_address, path, [request], **how)

    return make


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (range(1, 101), 0.5, 50),
        (range(100, 0, -1), 0.99, 99),
        (range(1, 101), 1.0, 100),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([7.0], 0.99, 7.0),
        ([], 0.5, None),
    ],
)
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed(part, values, share, expected):
    assert part("load").quantile(list(values), share) == expected


def turn(served: float, raw: float, largest: float, p50: float | None, failures: dict[str, int]) -> dict[str, object]:
    def answers(rate: float) -> dict[str, object]:
        return {
            "answered_per_second": rate,
            "latency": {"p50": p50, "p95": p50, "p99": p50},
            "failures": {},
        }

    return {
        "raw": {"images_per_second": raw, "p50": 0.001},
        "raw_largest": {"images_per_second": largest},
        "asyncio": answers(1),
        "sync": answers(2),
        "served": answers(served) | {"failures": failures},
    }


def test_ratios_are_medians_of_the_ratios_within_each_round(part):
    # The machine was ten times slower in the second round, for all alike; in the third the server had a bad day.
    turns = [
        turn(served=90, raw=800, largest=1000, p50=0.003, failures={}),
        turn(served=9, raw=80, largest=100, p50=0.030, failures={"UNAVAILABLE": 2}),
        turn(served=10, raw=800, largest=1000, p50=None, failures={"INTERNAL": 1}),
    ]
    found = part("throughput").summary(turns, 8)
    assert found["over_raw"] == pytest.approx(0.9)
    assert found["over_raw_largest"] == pytest.approx(0.72)
    assert found["overhead"] == pytest.approx((0.002 + 0.029) / 2)
    assert found["images_per_second"] == 80
    assert found["failures"] == 3


def test_overload_is_judged_by_the_capacity_before_and_after(part):
    during = {
        "answered_per_second": 57.0,
        "offered_per_second": 600.0,
        "failures": {"RESOURCE_EXHAUSTED": 500, "UNAVAILABLE": 3},
    }
    found = part("overload").summary({"answered_per_second": 70.0}, during, {"answered_per_second": 50.0})
    assert found["goodput_share"] == pytest.approx(0.95)
    assert found["offered_over_capacity"] == pytest.approx(10)
    assert (found["refused"], found["other_failures"]) == (500, 3)


def test_a_closed_loop_measures_what_a_server_of_known_speed_does(part, echo_job):
    # One call at a time has its turn of 20 ms, so that eight in flight wait for eight turns.
    found = part("load").generated(echo_job("/echo.Echo/Work", seconds=0.5, in_flight=8, least_reply=1000))
    assert found["failures"] == {}
    assert found["answered_per_second"] == pytest.approx(found["answered"] / found["seconds"])
    assert found["answered_per_second"] <= 50 * (1 + 8 / found["answered"])
    assert found["answered"] >= 16
    assert found["latency"]["p50"] >= 7 * 0.02


@pytest.mark.parametrize(
    ("path", "least_reply", "failure"),
    [("/echo.Echo/Bytes", 1001, "SHORT REPLY"), ("/echo.Echo/Nothing", 0, "UNIMPLEMENTED")],
)
def test_what_is_not_answered_as_it_should_be_is_counted_as_failed(part, echo_job, path, least_reply, failure):
    found = part("load").generated(echo_job(path, seconds=0.1, in_flight=2, least_reply=least_reply))
    assert found["answered"] == 0
    assert found["failures"].keys() == {failure}
    assert found["failures"][failure] >= 4
    assert found["latency"]["p50"] is None
    assert found["refused"]["p50"] > 0


def test_an_open_loop_makes_calls_at_its_rate_whatever_comes_back(part, echo_job):
    # Fifty a second are answered, no faster; twice as many are asked for.
    found = part("load").generated(echo_job("/echo.Echo/Work", seconds=0.6, rate=100, least_reply=1000))
    assert found["offered_per_second"] == pytest.approx(100, rel=0.1)
    assert found["answered"] <= 31
    assert sum(found["answered_in_second"]) == found["answered"]
    assert found["not_made"] == 0


def test_http_replies_are_counted_by_their_status(part):
    load = part("load")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        while head := await reader.readline():
            while (line := await reader.readline()) != b"\r\n":
                head += line
            body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
            status = b"200 OK" if body == b"good" else b"503 Busy"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 4\r\n\r\n" + body)
        writer.close()
        await writer.wait_closed()

    async def measured(body: bytes) -> dict[str, object]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
            requests = [base64.b64encode(body).decode()]
            found = await load.run(load.Job("http", address, "/", requests, seconds=0.1, in_flight=2, least_reply=4))
            await asyncio.gather(*handlers)
            handlers.clear()
            return found

    handlers: list[asyncio.Task[None]] = []
    good, busy = asyncio.run(measured(b"good")), asyncio.run(measured(b"evil"))
    assert good["answered"] > 0
    assert good["failures"] == {}
    assert busy["answered"] == 0
    assert busy["failures"].keys() == {"HTTP 503"}


def test_a_run_with_tiny_counts_leaves_figures_and_goes_on_where_it_was(tmp_path):
    def run(*options: str) -> str:
        command = [sys.executable, "-m", "benchmarks.serving", "--output", str(tmp_path / "figures")]
        counts = ["--rivals", str(tmp_path), "--rounds", "1", "--seconds", "0.05", "--rows", "1", "--in-flight", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *counts, *options],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("--parts", "throughput,batching")
    assert "| 1 | 2 |" in said
    assert "times as many" in said
    assert (tmp_path / "figures.png").stat().st_size > 10_000
    first = json.loads((tmp_path / "figures.json").read_text())["parts"]
    assert first["throughput"]["cells"][0]["failures"] == 0
    assert first["throughput"]["cells"][0]["over_raw"] > 0
    assert {"date", "commit", "machine", "cores", "python", "grpcio", "onnxruntime-gpu"} <= first["batching"].keys()
    assert "throughput: there already" in run("--parts", "throughput")
    assert json.loads((tmp_path / "figures.json").read_text())["parts"] == first
    assert not list(tmp_path.glob("*.partial"))


def test_a_server_is_ended_with_all_that_it_started(part, tmp_path):
    processes = part("processes")
    script = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '600'], start_new_session=True);"
        "print('child', child.pid, 'on 127.0.0.1:1', flush=True); child.wait()"
    )
    with processes.started([sys.executable, "-c", script]) as server:
        family = processes._descendants(processes._statistics(), server.process.pid)
        assert len(family) == 2
        assert server.resident_bytes() > 2**20
    left = processes._statistics()
    assert [identity for identity in family if identity in left and left[identity][0] != "Z"] == []
