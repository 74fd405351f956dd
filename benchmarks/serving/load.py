"""The load generator: one process, one event loop, requests and replies as bytes.

It reads a Job as JSON from stdin and writes what it measured as JSON to stdout. A closed loop keeps a number of calls
in flight: each caller makes its next call when the last one was answered. An open loop makes calls at a rate, whatever
comes back. Calls before every caller has had an answer are warm-up; of the rest, those are counted that end within the
window. Every call has a deadline and every loop an end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
WARM_UP = 0.3
"""Seconds, at least."""
LONGEST = 45.0
"""Seconds after which a closed loop ends, answered or not."""
DEADLINE = 60.0
CALLS_PER_CONNECTION = 32
OUTSTANDING = 2_000
"""Calls of an open loop at once; what would be one more is not made, and counted."""
PAUSE_AFTER_FAILURE = 0.01
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}

Call = Callable[[int], Awaitable[tuple[str, bytes]]]
"""Makes the call of a number: its outcome, "OK" or what went wrong, and the reply."""


@dataclass(frozen=True)
class Job:
    """What to ask of whom, and how often."""

    protocol: str
    """"grpc" or "http"."""
    address: str
    path: str
    """/package.Service/Method, or the URL's path."""
    requests: Sequence[str]
    """Messages or bodies in base64, sent in turn."""
    seconds: float
    in_flight: int = 0
    """Of a closed loop."""
    rate: float = 0
    """Calls a second of an open loop."""
    least_reply: int = 0
    """Bytes below which a reply is a failure."""
    content_type: str = "application/octet-stream"
    metadata: Sequence[Sequence[str]] = ()
    pause: float = 0
    """Seconds between a caller's calls."""


@dataclass
class Answers:
    """What came back within the window, in seconds."""

    latency: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """The time to RESOURCE_EXHAUSTED, UNAVAILABLE or DEADLINE_EXCEEDED."""
    answered_at: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, seconds: float, at: float) -> None:
        """Counts the end of a call."""
        if outcome == "OK":
            self.latency.append(seconds)
            self.answered_at.append(at)
        else:
            self.failures[outcome] += 1
            self.refused.append(seconds)

    @property
    def count(self) -> int:
        """All calls that ended."""
        return len(self.latency) + self.failures.total()


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of the values do not exceed; None where there is none."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] if values else None


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """The quantiles that are reported, by name."""
    return {name: quantile(values, share) for name, share in QUANTILES.items()}


async def closed_loop(call: Call, job: Job) -> dict[str, Any]:
    """Keeps `job.in_flight` calls in flight for `job.seconds`, and until there are twice as many answers as callers."""
    answers, started = Answers(), time.perf_counter()
    begin = end = math.inf
    unwarmed = set(range(job.in_flight))

    async def caller(position: int) -> None:
        nonlocal begin, end
        number = position
        while (now := time.perf_counter()) < end and now < started + LONGEST:
            outcome, _ = await call(number)
            ended = time.perf_counter()
            if begin <= ended <= end:
                answers.add(outcome, ended - now, ended - begin)
            unwarmed.discard(position)
            if begin == math.inf and not unwarmed and ended > started + WARM_UP:
                begin = time.perf_counter()
            if end == math.inf and ended > begin + job.seconds and answers.count >= 2 * job.in_flight:
                end = ended
            if pause := job.pause if outcome == "OK" else max(job.pause, PAUSE_AFTER_FAILURE):
                await asyncio.sleep(pause)
            number += job.in_flight

    await asyncio.gather(*(caller(position) for position in range(job.in_flight)))
    return _summary(answers, min(end, time.perf_counter()) - min(begin, time.perf_counter()))


async def open_loop(call: Call, job: Job) -> dict[str, Any]:
    """Makes `job.rate` calls a second for `job.seconds`, and awaits those that are out at the end."""
    answers, tasks, started = Answers(), set[asyncio.Task[None]](), time.perf_counter()
    made = unmade = 0
    latest = 0.0

    async def one(number: int) -> None:
        sent = time.perf_counter()
        outcome, _ = await call(number)
        ended = time.perf_counter()
        if ended <= started + job.seconds:
            answers.add(outcome, ended - sent, ended - started)

    while (elapsed := time.perf_counter() - started) < job.seconds:
        while made + unmade < elapsed * job.rate:
            latest = max(latest, elapsed - (made + unmade) / job.rate)
            if len(tasks) >= OUTSTANDING:
                unmade += 1
                continue
            task = asyncio.create_task(one(made))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            made += 1
        await asyncio.sleep(min(1 / job.rate, 0.005))
    await asyncio.gather(*tasks)
    summary = _summary(answers, job.seconds)
    per_second = Counter(int(at) for at in answers.answered_at)
    return summary | {
        "offered_per_second": made / job.seconds,
        "not_made": unmade,
        "latest_seconds": latest,
        "answered_in_second": [per_second[second] for second in range(math.ceil(job.seconds))],
    }


def _summary(answers: Answers, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "answered": len(answers.latency),
        "answered_per_second": len(answers.latency) / seconds if seconds > 0 else 0.0,
        "latency": quantiles(answers.latency),
        "refused": quantiles(answers.refused),
        "failures": dict(answers.failures),
    }


@contextlib.asynccontextmanager
async def grpc_calls(job: Job) -> AsyncIterator[Call]:
    """Unary calls over gRPC, spread over connections."""
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    count = max(1, math.ceil((job.in_flight or OUTSTANDING / 4) / CALLS_PER_CONNECTION))
    requests = [base64.b64decode(request) for request in job.requests]
    metadata = tuple((key, value) for key, value in job.metadata)
    async with contextlib.AsyncExitStack() as stack:
        methods = []
        for _ in range(count):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(job.address, options=options))
            methods.append(channel.unary_unary(job.path))

        async def call(number: int) -> tuple[str, bytes]:
            try:
                reply: bytes = await methods[number % count](
                    requests[number % len(requests)], timeout=DEADLINE, metadata=metadata
                )
            except grpc.RpcError as error:
                return error.code().name, b""
            return ("OK" if len(reply) >= job.least_reply else "SHORT REPLY"), reply

        yield call


@contextlib.asynccontextmanager
async def http_calls(job: Job) -> AsyncIterator[Call]:
    """POST requests over HTTP/1.1, each caller on a connection that is kept."""
    host, port = job.address.rsplit(":", 1)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    head = f"POST {job.path} HTTP/1.1\r\nHost: {job.address}\r\nContent-Type: {job.content_type}\r\nContent-Length: "
    bodies = [base64.b64decode(request) for request in job.requests]
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]

    async def exchange(number: int) -> tuple[str, bytes]:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(host, int(port))
        try:
            writer.write(requests[number % len(requests)])
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            reply = await reader.readexactly(int(headers[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get(b"connection") == b"close":
            writer.close()
        else:
            idle.append((reader, writer))
        code = status.split(b" ")[1].decode()
        if code != "200":
            return f"HTTP {code}", reply
        return ("OK" if len(reply) >= job.least_reply else "SHORT REPLY"), reply

    async def call(number: int) -> tuple[str, bytes]:
        try:
            return await asyncio.wait_for(exchange(number), DEADLINE)
        except (OSError, EOFError, TimeoutError, KeyError) as error:
            return type(error).__name__, b""

    yield call
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


async def run(job: Job) -> dict[str, Any]:
    """Does the job in this process."""
    async with (grpc_calls if job.protocol == "grpc" else http_calls)(job) as call:
        before = _processor_seconds()
        summary = await (open_loop if job.rate else closed_loop)(call, job)
        return summary | {"client_processor_seconds": _processor_seconds() - before}


async def first_reply(job: Job) -> tuple[str, bytes]:
    """Makes one call, in this process."""
    async with (grpc_calls if job.protocol == "grpc" else http_calls)(job) as call:
        return await call(0)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Generator:
    """The load generator in a process of its own, started at once."""

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.load"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)))
        self._process.stdin.close()

    def result(self) -> dict[str, Any]:
        """Waits for the end, and returns what was measured.

        Raises:
            RuntimeError: If the process failed.
        """
        assert self._process.stdout is not None
        try:
            said = self._process.stdout.read()
            if self._process.wait() != 0:
                raise RuntimeError(f"the load generator ended with {self._process.returncode}")
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
        return dict(json.loads(said))


def generated(job: Job) -> dict[str, Any]:
    """Does the job in a process of its own."""
    return Generator(job).result()


if __name__ == "__main__":
    json.dump(asyncio.run(run(Job(**json.load(sys.stdin)))), sys.stdout)
