"""Threads, asyncio or uvloop under a gRPC server: an echo, and an echo beside 256 calls that wait for a turn."""

from __future__ import annotations

import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .echo import BYTES, KINDS, WORK, echo_request
from .environments import NotInstalledError, environment, versions
from .load import Generator, Job, generated
from .processes import module, started
from .requests import IMAGE_BYTES, encoded
from .throughput import REPLY_OVERHEAD, median

IN_FLIGHT = (1, 32, 256)
WAITING = 256
WORK_MILLISECONDS = 10
"""A turn's length: about that of a run of 64 images."""


def measure(cache: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Each kind of server by turns; one environment for all three, without uvloop where it cannot be installed."""
    try:
        python: Path | None = environment("uvloop", [f"grpcio=={version('grpcio')}", "uvloop>=0.21"], cache)
        kinds, missing = KINDS, None
    except NotInstalledError as error:
        python, kinds, missing = None, KINDS[:2], str(error)
    found: dict[str, Any] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            command = module("echo", kind, "--work", str(WORK_MILLISECONDS))
            found[kind].append(_measured([str(python or command[0]), *command[1:]], seconds))
            print(kind, _brief(found[kind][-1]), flush=True)
    return {
        "rounds": found,
        "medians": {kind: _medians(turns) for kind, turns in found.items()},
        "missing": {"uvloop": missing} if missing else {},
        "versions": versions(python, "grpcio", "uvloop") if python else {},
    }


def _measured(command: list[str], seconds: float) -> dict[str, Any]:
    request = encoded([echo_request(16, IMAGE_BYTES + REPLY_OVERHEAD)])
    with started(command) as server:

        def job(path: str, calls: int, pause: float = 0) -> Job:
            return Job("grpc", server.address, path, request, seconds, calls, least_reply=IMAGE_BYTES, pause=pause)

        echoes = {}
        for calls in IN_FLIGHT:
            before = server.processor_seconds()
            echoes[str(calls)] = generated(job(BYTES, calls))
            echoes[str(calls)]["server_processor_seconds"] = server.processor_seconds() - before
        generator = Generator(job(WORK, WAITING))
        beside = generated(job(BYTES, 1, pause=0.02))
        return {"echo": echoes, "beside": beside, "work": generator.result()}


def _medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "echoes_per_second": {
            str(calls): statistics.median(turn["echo"][str(calls)]["answered_per_second"] for turn in turns)
            for calls in IN_FLIGHT
        },
        "echo_p50": median(turn["echo"]["1"]["latency"]["p50"] for turn in turns),
        "beside": {name: median(turn["beside"]["latency"][name] for turn in turns) for name in ("p50", "p99", "max")},
        "failures": sum(
            sum(each["failures"].values())
            for turn in turns
            for each in (turn["beside"], turn["work"], *turn["echo"].values())
        ),
    }


def _brief(turn: dict[str, Any]) -> str:
    rates = ", ".join(f"{each['answered_per_second']:.0f}/s at {calls}" for calls, each in turn["echo"].items())
    return f"{rates}; beside {WAITING} waiting p50 {(turn['beside']['latency']['p50'] or 0) * 1e3:.2f} ms"
