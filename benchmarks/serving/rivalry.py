"""Our server beside others with the same model file: single-image requests at 32 in flight, taking turns."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import NotInstalledError, environment, our_runtime, versions
from .load import REPOSITORY, Job, first_reply, generated
from .processes import Server, free_address, infosink_serve, started
from .raw import RawSession
from .requests import (
    IMAGE_BYTES,
    SAMPLE,
    Latents,
    bytes_inference_requests,
    encoded,
    inference_requests,
    json_bodies,
    packed,
    sample_requests,
)

IN_FLIGHT = 32
START_SECONDS = 90
PROGRAMS = REPOSITORY / "benchmarks" / "serving" / "rivals"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Rival:
    """Another server: how it is installed, started and asked."""

    name: str
    package: str
    requirement: str
    configuration: str
    """What a reader must know to judge the comparison."""
    variants: Sequence[Mapping[str, str]]
    """Settings to try, as variables: the one that serves most is compared."""
    command: Sequence[str]
    """After the environment's folder of programs; ADDRESS, HOST and PORT stand for where to listen."""
    requests: Callable[[Latents], list[bytes]]
    pixels: Callable[[bytes], bytes]
    """The image in a reply."""
    job: dict[str, Any]


def _waits(*seconds: float) -> tuple[dict[str, str], ...]:
    return tuple({"WAIT_SECONDS": str(each)} for each in seconds)


def _inferred(reply: bytes) -> bytes:
    """The one output of ModelInfer, raw; an element of type BYTES stands behind its length."""
    from infosink.oip.open_inference_service_pb2 import ModelInferResponse

    response = ModelInferResponse.FromString(reply)
    (raw,) = response.raw_output_contents
    return bytes(raw[4:] if response.outputs[0].datatype == "BYTES" else raw)


def _bytes_values(latents: Latents) -> list[bytes]:
    from google.protobuf.wrappers_pb2 import BytesValue

    return [BytesValue(value=latent).SerializeToString() for latent in packed(latents)]


def _bytes_value(reply: bytes) -> bytes:
    from google.protobuf.wrappers_pb2 import BytesValue

    return bytes(BytesValue.FromString(reply).value)


RIVALS = (
    Rival(
        name="MLServer",
        package="mlserver",
        requirement="mlserver>=1.7",
        configuration="gRPC with raw bytes, adaptive batching, no worker pool, runs in a thread",
        variants=_waits(0.001, 0.005, 0.01),
        command=("python", "mlserver_model.py", "ADDRESS"),
        requests=lambda latents: bytes_inference_requests(latents, "generator"),
        pixels=_inferred,
        job={"protocol": "grpc", "path": INFER},
    ),
    Rival(
        name="BentoML",
        package="bentoml",
        requirement="bentoml>=1.4",
        configuration="HTTP with base64 in JSON, adaptive batching within a latency, one worker",
        variants=_waits(0.1, 1, 60),
        command=("bentoml", "serve", "bentoml_service:DigitGenerator", "--host", "HOST", "--port", "PORT"),
        requests=lambda latents: json_bodies(latents, "latents"),
        pixels=lambda reply: base64.b64decode(json.loads(reply)[0]),
        job={"protocol": "http", "path": "/generate", "content_type": "application/json"},
    ),
    Rival(
        name="LitServe",
        package="litserve",
        requirement="litserve>=0.2",
        configuration="HTTP with base64 in JSON, replies as bytes, batching, one worker",
        variants=(*_waits(0.001, 0.005), *({**wait, "FAST_QUEUE": "1"} for wait in _waits(0.001, 0.005))),
        command=("python", "litserve_api.py", "ADDRESS"),
        requests=lambda latents: json_bodies(latents, "latent"),
        pixels=bytes,
        job={"protocol": "http", "path": "/predict", "content_type": "application/json"},
    ),
    Rival(
        name="Ray Serve",
        package="ray",
        requirement="ray[serve]>=2.50",
        configuration="gRPC, batching, one replica, access log off",
        variants=_waits(0, 0.002, 0.005),
        command=("python", "ray_app.py", "ADDRESS"),
        requests=_bytes_values,
        pixels=_bytes_value,
        job={
            "protocol": "grpc",
            "path": "/benchmark.DigitGenerator/Generate",
            "metadata": (("application", "generator"),),
        },
    ),
)


def measure(
    rival: Rival, model: Path, raw: RawSession, threads: int, cache: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    """One rival and we, by turns; why not, where it cannot be installed or run."""

    def job(server: Server) -> Job:
        return Job(
            **rival.job,
            address=server.address,
            requests=encoded(rival.requests(raw.latents)),
            in_flight=IN_FLIGHT,
            seconds=seconds,
            least_reply=IMAGE_BYTES,
        )

    def serving(python: Path, variant: Mapping[str, str]) -> contextlib.AbstractContextManager[Server]:
        return _serving(rival, python, variant, model, threads, cache)

    try:
        python = environment(rival.package, [rival.requirement, our_runtime()], cache)
        trials = []
        for variant in rival.variants:
            with serving(python, variant) as theirs:
                _await_first_reply(job(theirs), rival.pixels, theirs, raw)
                generated(job(theirs))  # what adapts, adapts to the load
                trials.append({"settings": variant, **generated(job(theirs))})
        best = max(trials, key=lambda trial: trial["answered_per_second"])
        with serving(python, best["settings"]) as theirs, started(infosink_serve(model, threads)) as ours:
            _await_first_reply(job(theirs), rival.pixels, theirs, raw)
            found = _turns(_our_job(ours, seconds), job(theirs), ours, theirs, rounds)
        its_versions = versions(python, rival.package, "onnxruntime-gpu", "numpy")
        return {"settings": best["settings"], "trials": trials, **found, "versions": its_versions}
    except (NotInstalledError, RuntimeError) as error:
        return {"not_run": str(error)}


def measure_inference_protocol(
    model: Path, raw: RawSession, threads: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Our own server by its other protocol, beside itself."""
    with started(infosink_serve(model, threads)) as other, started(infosink_serve(model, threads)) as ours:
        job = Job(
            protocol="grpc",
            path=INFER,
            address=other.address,
            requests=encoded(inference_requests(raw.latents, "")),
            in_flight=IN_FLIGHT,
            seconds=seconds,
            least_reply=IMAGE_BYTES,
        )
        try:
            _await_first_reply(job, _inferred, other, raw)
        except RuntimeError as error:
            return {"not_run": str(error)}
        return _turns(_our_job(ours, seconds), job, ours, other, rounds)


def _our_job(ours: Server, seconds: float) -> Job:
    return Job(
        protocol="grpc",
        path=SAMPLE,
        address=ours.address,
        requests=sample_requests(1),
        in_flight=IN_FLIGHT,
        seconds=seconds,
        least_reply=IMAGE_BYTES,
    )


@contextlib.contextmanager
def _serving(
    rival: Rival, python: Path, variant: Mapping[str, str], model: Path, threads: int, cache: Path
) -> Iterator[Server]:
    address = free_address()
    host, port = address.rsplit(":", 1)
    program, *words = rival.command
    where = {"ADDRESS": address, "HOST": host, "PORT": port}
    command = [str(python.with_name(program)), *(where.get(word, word) for word in words)]
    variables = {
        **variant,
        "GENERATOR_MODEL": str(model.absolute()),
        "GENERATOR_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(PROGRAMS),
        # No telemetry.
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    log = cache / f"{rival.package}.log"
    with started(command, address=address, log=log, directory=PROGRAMS, environment=variables) as server:
        yield server


def _await_first_reply(job: Job, pixels: Callable[[bytes], bytes], server: Server, raw: RawSession) -> None:
    """Asks until there is an answer, which must be the image that onnxruntime alone gives."""
    expected, patience = raw.pixels(slice(1)).tobytes(), time.perf_counter() + START_SECONDS
    outcome = "nothing"
    while time.perf_counter() < patience and server.process.poll() is None:
        outcome, reply = asyncio.run(first_reply(job))
        if outcome == "OK":
            if pixels(reply) != expected:
                raise RuntimeError("it answered with another image")
            return
        time.sleep(0.5)
    raise RuntimeError(f"no answer but {outcome}, exit code {server.process.poll()}")


def _turns(our_job: Job, their_job: Job, ours: Server, theirs: Server, rounds: int) -> dict[str, Any]:
    """By turns; the one that is not asked is stopped meanwhile."""
    with ours.paused():
        generated(their_job)  # what adapts, adapts to the load
    turns = []
    for _ in range(rounds):
        with theirs.paused():
            turn = {"ours": generated(our_job)}
        with ours.paused():
            turns.append(turn | {"theirs": generated(their_job)})
    return {"rounds": turns, "ours_over_theirs": statistics.median(map(_ratio, turns))}


def _ratio(turn: dict[str, Any]) -> float:
    theirs = turn["theirs"]["answered_per_second"]
    return float(turn["ours"]["answered_per_second"] / theirs) if theirs else float("inf")
