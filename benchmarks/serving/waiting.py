"""Health while 256 requests wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .load import Generator, Job
from .processes import infosink_serve, started
from .raw import LARGEST
from .requests import CHECK, IMAGE_BYTES, SAMPLE, encoded, sample_requests

WAITING = 256
ROWS = 64
EVERY = 0.02
"""Seconds between two checks."""


def measure(model: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Health checks one after another: of an idle server, and with 256 calls of 64 images in flight."""
    checks = encoded([b""])
    with started(infosink_serve(model, threads, "--queue-rows", str((WAITING + 1) * LARGEST))) as ours:
        check = Job("grpc", ours.address, CHECK, checks, seconds / 2, 1, pause=EVERY)
        idle = Generator(check).result()
        requests = sample_requests(ROWS)
        load = Job("grpc", ours.address, SAMPLE, requests, seconds, WAITING, least_reply=ROWS * IMAGE_BYTES)
        generator = Generator(load)
        busy = Generator(check).result()
        served = generator.result()
    return {"idle": idle, "busy": busy, "served": served}
