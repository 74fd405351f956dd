"""Served over raw throughput, and latency: requests of a few sizes, from one to many in flight."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .echo import BYTES, echo_request
from .load import Job, generated
from .processes import Server, infosink_serve, module, started
from .raw import LARGEST, RawSession
from .requests import IMAGE_BYTES, SAMPLE, encoded, sample_requests

ROWS = (1, 8, 64)
IN_FLIGHT = (1, 8, 32, 128, 256)
FLOORS = ("asyncio", "sync")
REPLY_OVERHEAD = 400
"""Bytes that a reply of one image has besides the image, about."""


def measure(
    model: Path,
    raw: RawSession,
    threads: int,
    rounds: int,
    seconds: float,
    rows: Sequence[int] = ROWS,
    in_flight: Sequence[int] = IN_FLIGHT,
) -> dict[str, Any]:
    """Every size at every number in flight: onnxruntime alone, two echoes and our server take turns."""
    # Room for all that is sent, so that nothing is refused.
    queue = str(max(in_flight) * max(rows) + 2 * LARGEST)
    with (
        started(infosink_serve(model, threads, "--queue-rows", queue)) as ours,
        started(module("echo", "asyncio")) as asyncio_echo,
        started(module("echo", "sync")) as sync_echo,
    ):
        echoes = {"asyncio": asyncio_echo, "sync": sync_echo}
        cells = []
        for size in rows:
            for calls in in_flight:
                turns = [_turn(ours, echoes, raw, size, calls, seconds) for _ in range(rounds)]
                cells.append({"rows": size, "in_flight": calls, "rounds": turns, **summary(turns, size)})
                print(_line(cells[-1]), flush=True)
    return {"cells": cells}


def _turn(
    ours: Server, echoes: dict[str, Server], raw: RawSession, size: int, calls: int, seconds: float
) -> dict[str, Any]:
    requests = sample_requests(size)
    echo = encoded([echo_request(len(requests[0]) * 3 // 4, size * IMAGE_BYTES + REPLY_OVERHEAD)])
    turn: dict[str, Any] = {"raw": raw.measured(size, seconds / 2), "raw_largest": raw.measured(LARGEST, seconds / 2)}
    for name, server in echoes.items():
        job = Job("grpc", server.address, BYTES, echo, seconds / 2, calls, least_reply=size * IMAGE_BYTES)
        turn[name] = generated(job)
    before = ours.processor_seconds()
    job = Job("grpc", ours.address, SAMPLE, requests, seconds, calls, least_reply=size * IMAGE_BYTES)
    turn["served"] = generated(job)
    turn["server_processor_seconds"] = ours.processor_seconds() - before
    return turn


def summary(turns: Sequence[dict[str, Any]], size: int) -> dict[str, Any]:
    """The medians over rounds: of ratios, each within its round, and of latencies, in seconds.

    `over_raw` compares images a second with runs of the request's own size, `over_raw_largest` with runs of 64;
    `overhead` is the served median latency beyond that of a run.
    """
    served = [turn["served"] for turn in turns]
    images = [size * each["answered_per_second"] for each in served]

    def over(what: str) -> float:
        pairs = zip(images, turns, strict=True)
        return statistics.median(value / turn[what]["images_per_second"] for value, turn in pairs)

    return {
        "images_per_second": statistics.median(images),
        "over_raw": over("raw"),
        "over_raw_largest": over("raw_largest"),
        "latency": {name: median(each["latency"][name] for each in served) for name in ("p50", "p95", "p99")},
        "overhead": median(
            None if turn["served"]["latency"]["p50"] is None else turn["served"]["latency"]["p50"] - turn["raw"]["p50"]
            for turn in turns
        ),
        "echoes_per_second": {
            name: statistics.median(turn[name]["answered_per_second"] for turn in turns) for name in FLOORS
        },
        "echo_p50": {name: median(turn[name]["latency"]["p50"] for turn in turns) for name in FLOORS},
        "failures": sum(sum(turn[name]["failures"].values()) for turn in turns for name in ("served", *FLOORS)),
    }


def median(values: Any) -> float | None:
    """The median of the values that are there; None where there is none."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def _line(cell: dict[str, Any]) -> str:
    p50 = cell["latency"]["p50"] or math.nan
    return (
        f"images a request {cell['rows']}, in flight {cell['in_flight']}: {cell['images_per_second']:.0f} images/s, "
        f"{cell['over_raw']:.2f} of raw, p50 {p50 * 1e3:.1f} ms, {cell['failures']} failures"
    )
