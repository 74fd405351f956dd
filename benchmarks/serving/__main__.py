"""The server's figures: how much of onnxruntime's speed it passes on, how it holds under load, and beside others.

usage: python -m benchmarks.serving [--parts PARTS] [--output docs/serving-figures]

Parts, each kept in OUTPUT.json as soon as it is done, and not done again unless --again says so:

    throughput    served over raw onnxruntime, latencies, and the floor: an echo of as many bytes
    batching      batched over one row a run
    overload      ten times the capacity offered: goodput, refusals, memory
    health        health checks with 256 requests waiting
    event-loops   threads, asyncio or uvloop under a gRPC server
    rivals        the same file behind MLServer, BentoML, LitServe and Ray Serve, each in an environment of its own,
                  made with pip in --rivals; and our own server by the Open Inference Protocol

Prints the tables in Markdown and draws OUTPUT.png. Server and load share this machine's processors and talk over
127.0.0.1; what is compared takes turns, and every ratio is of one run. About fifteen minutes on two cores, half of them
for the rivals; another busy process makes the figures worthless.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..provenance import provenance
from . import batching, event_loops, overload, report, rivalry, throughput, waiting
from .load import REPOSITORY
from .raw import RawSession

PARTS = ("throughput", "batching", "overload", "health", "event-loops", "rivals")
OUR_OTHER_PROTOCOL = "infosink, OIP"


def main() -> None:
    """Measures what is asked for and not there yet, and shows all that is there."""
    arguments = _arguments()
    # Before any library starts its threads; inherited by all that is started.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    path = arguments.output.with_suffix(".json")
    parts: report.Parts = json.loads(path.read_text())["parts"] if path.exists() else {}
    for name, measure in _measurements(arguments).items():
        if name in parts and "not_run" not in parts[name] and not arguments.again:
            print(f"{name}: there already")
            continue
        print(f"{name} …", flush=True)
        origin = provenance("grpcio", "onnxruntime-gpu", "numpy", "protobuf")
        settings = {name: getattr(arguments, name) for name in ("threads", "rounds", "seconds")}
        parts[name] = origin | settings | {"model": arguments.model.name} | measure()
        _write(path, {"parts": parts})
    if parts:
        report.plot(parts, arguments.output.with_suffix(".png"))
    print(report.tables(parts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help="Comma-separated. [all]")
    parser.add_argument("--again", action="store_true", help="Measure the parts that are there already, too.")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "serving" / "released" / "mnist-gen.onnx")
    parser.add_argument("--threads", type=int, default=1, help="That share one run, in every server. [1]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--seconds", type=float, default=2.0, help="Of one measurement, about. [2]")
    parser.add_argument("--rows", type=_numbers, default=throughput.ROWS, help="Images a request. [1,8,64]")
    parser.add_argument("--in-flight", type=_numbers, default=throughput.IN_FLIGHT, help="[1,8,32,128,256]")
    parser.add_argument("--rivals", type=Path, default=REPOSITORY / ".venv" / "rivals", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("docs/serving-figures"), help="Without suffix.")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{min(unknown)} is no part: choose from {', '.join(PARTS)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _measurements(arguments: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """What each part does, by its name in the file."""
    model, threads, rounds, seconds = arguments.model, arguments.threads, arguments.rounds, arguments.seconds
    raw = functools.cache(lambda: RawSession(model, threads))
    cache = arguments.rivals.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    core: dict[str, Callable[[], dict[str, Any]]] = {
        "throughput": lambda: throughput.measure(
            model, raw(), threads, rounds, seconds, arguments.rows, arguments.in_flight
        ),
        "batching": lambda: batching.measure(model, threads, rounds, 2 * seconds),
        "overload": lambda: overload.measure(model, threads, 10 * seconds),
        "health": lambda: waiting.measure(model, threads, 4 * seconds),
        "event-loops": lambda: event_loops.measure(cache, rounds, seconds),
    }
    chosen = {name: core[name] for name in arguments.parts if name in core}
    if "rivals" in arguments.parts:
        for rival in rivalry.RIVALS:
            chosen[report.RIVAL + rival.name] = lambda rival=rival: {
                "package": rival.package,
                "configuration": rival.configuration,
                **rivalry.measure(rival, model, raw(), threads, cache, rounds, 2 * seconds),
            }
        chosen[report.RIVAL + OUR_OTHER_PROTOCOL] = lambda: {
            "configuration": "our own server by the Open Inference Protocol: the latents in the request, not drawn",
            **rivalry.measure_inference_protocol(model, raw(), threads, rounds, 2 * seconds),
        }
    return chosen


def _write(path: Path, facts: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_rounded(facts), indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def _rounded(value: Any) -> Any:
    """Numbers to six digits, which is more than they mean."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # What was started is ended on the way out.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _stop)
    main()
