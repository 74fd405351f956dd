"""Ten times the capacity offered: what is still answered, how fast the rest is refused, and the memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .load import Job, generated
from .processes import infosink_serve, started
from .requests import IMAGE_BYTES, SAMPLE, sample_requests

ROWS = 64
"""Images a request: few enough requests a second that one client can offer ten times what is served."""
IN_FLIGHT = 32
TIMES = 10


def measure(model: Path, threads: int, seconds: float) -> dict[str, Any]:
    """The capacity in a closed loop, before and after; between them ten times its requests a second."""
    with started(infosink_serve(model, threads)) as ours:

        def job(**how: Any) -> Job:
            requests = sample_requests(ROWS)
            return Job("grpc", ours.address, SAMPLE, requests, least_reply=ROWS * IMAGE_BYTES, **how)

        before = generated(job(seconds=seconds / 5, in_flight=IN_FLIGHT))
        rate = TIMES * before["answered_per_second"]
        with ours.watched() as memory:
            during = generated(job(seconds=seconds, rate=rate))
        after = generated(job(seconds=seconds / 5, in_flight=IN_FLIGHT))
    found = {"before": before, "during": during, "after": after, "memory": memory}
    return found | summary(before, during, after)


def summary(before: dict[str, Any], during: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What was answered and offered over the capacity, the mean of before and after, and how the rest ended."""
    capacity = statistics.mean(each["answered_per_second"] for each in (before, after))
    refused = during["failures"].get("RESOURCE_EXHAUSTED", 0)
    return {
        "goodput_share": during["answered_per_second"] / capacity,
        "offered_over_capacity": during["offered_per_second"] / capacity,
        "refused": refused,
        "other_failures": sum(during["failures"].values()) - refused,
    }
