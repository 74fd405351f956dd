"""Batched over unbatched: our server beside itself with one row a run."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .load import Job, generated
from .processes import infosink_serve, module, started
from .requests import IMAGE_BYTES, SAMPLE, sample_requests

IN_FLIGHT = 32


def measure(model: Path, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Single-image requests at 32 in flight, the two by turns."""
    options = infosink_serve(model, threads)[1:]
    with (
        started(infosink_serve(model, threads)) as batched,
        started(module("unbatched", *options)) as unbatched,
    ):
        servers = {"batched": batched, "unbatched": unbatched}
        requests = sample_requests(1)
        turns = [
            {
                name: generated(
                    Job("grpc", server.address, SAMPLE, requests, seconds, IN_FLIGHT, least_reply=IMAGE_BYTES)
                )
                for name, server in servers.items()
            }
            for _ in range(rounds)
        ]
    return {"rounds": turns, "batched_over_unbatched": statistics.median(map(_ratio, turns))}


def _ratio(turn: dict[str, Any]) -> float:
    return float(turn["batched"]["answered_per_second"] / turn["unbatched"]["answered_per_second"])
