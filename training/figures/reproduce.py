"""From the command line's words to the figures: checks everything first, then trains what is missing and draws."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..configuration import POINT_DATASETS, Configuration, preset_configuration
from ..datasets import open_dataset
from ..launch import choose_device
from ..progress import plain_console
from ..run_directory import RunDirectory
from ..trained_model import TrainedModel, load_trained_model
from . import categories, information_plan, smoothing, traversals
from .drawing import Drawing, save
from .runs import FigureError, iterations_done, train_run, versions

FIGURES = (1, 2, 3, 4)
_LINE_SECONDS = 15.0  # between lines of progress where there is no terminal
# Which finished runs a figure shows: baseline and informative, by data.
_RUNS_OF = {1: (), 2: (), 3: ("gaussians", "mnist"), 4: ("mnist",)}
_QUICK_HOLD_OUT = 30_000  # half as many images to name the categories by

Progress = Callable[[str], None]
Pair = tuple[TrainedModel, TrainedModel]


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        figures: their numbers.
        output: the directory of the figures.
        quick: whether to draw small versions, training small runs where none are given.
        seed: of everything random.
        runs: finished runs: "gaussians", "gaussians-baseline", "mnist" and "mnist-baseline"; those given.
        data_directory: MNIST's files; None to fetch them once.
        device: "auto", "cpu" or "cuda", to train on.
    """

    figures: tuple[int, ...]
    output: Path
    quick: bool
    seed: int
    runs: dict[str, Path]
    data_directory: Path | None
    device: str


def reproduce(request: Request) -> list[Path]:
    """Draws the figures asked for.

    Returns:
        The files written.

    Raises:
        FigureError: a run is missing, or is not what its figure needs.
        LaunchError: the device cannot be had.
        RunDirectoryError: a run is damaged or cannot be written.
        DatasetError: the data cannot be had.
        TrainingDivergedError: a run diverged.
        OSError: a file cannot be written.
    """
    device = choose_device(request.device)
    _require_runs(request)
    request.output.mkdir(parents=True, exist_ok=True)
    if not os.access(request.output, os.W_OK):
        raise FigureError(f"cannot write to {request.output}: make it writable, or name another with --output")
    console = plain_console()
    models: dict[str, Pair] = {}
    written = []
    for number in sorted(set(request.figures)):
        for data in _RUNS_OF[number]:
            if data not in models:
                models[data] = _models(data, request, device, console)
        drawing = _draw(number, request, models, device, console)
        numbers = {"figure": number, "quick": request.quick, **drawing.numbers, "versions": versions()}
        written += save(Drawing(drawing.figure, numbers), request.output, f"figure-{number}")
        console.print(f"figure {number}: {shlex.quote(str(written[-2]))}", soft_wrap=True)
    return written


def quick_settings(run: str, seed: int) -> Configuration:
    """The settings of a run that is trained on the spot, with --quick.

    The Gaussians are the eight on a circle, which take seconds. A baseline is without λ and without all
    that is past the paper: a listening generator would be told its category by other means.
    """
    baseline: dict[str, Any] = {"lambda": 0.0} if run.endswith("-baseline") else {}
    if run.startswith("gaussians"):
        fast = dict(batch_size=128, iterations=400, dual_learning_rate=1e-3, code_learning_rate=1e-3,
                    generator_learning_rate=1e-3, seed=seed)  # fmt: skip
        return preset_configuration("eight-gaussians", "quick", **({"lambda": 1.5} | fast | baseline))
    small = dict(batch_size=32, view_batch_size=96, iterations=120, listening_from=40, averaging=0.9, seed=seed)
    if baseline:
        baseline |= dict(invariance=0.0, over_clusters=0, listening=0.0)
    return preset_configuration("mnist", "quick", **(small | baseline))


def _require_runs(request: Request) -> None:
    """Checks, before any work, that every run a figure needs is there and is what it should be."""
    needed = sorted({data for number in request.figures for data in _RUNS_OF[number]})
    names = [f"{data}{suffix}" for data in needed for suffix in ("-baseline", "")]
    missing = [name for name in names if name not in request.runs]
    if missing and not request.quick:
        commands = "\n".join(
            f"    infosink-train {name.removesuffix('-baseline')}{' --lambda 0' if 'baseline' in name else ''} "
            f"--output runs/{name}"
            for name in missing
        )
        options = " ".join(f"--{name} runs/{name}" for name in missing)
        drawn = [str(number) for number in sorted(set(request.figures)) if _RUNS_OF[number]]
        which = f"figure {drawn[0]} is" if len(drawn) == 1 else f"figures {' and '.join(drawn)} are"
        raise FigureError(
            f"{which} drawn from finished runs. Train them:\n{commands}\nand name them: {options}. "
            "Or use --quick for small ones trained on the spot."
        )
    given = {name: request.runs[name] for name in names if name in request.runs}
    for name, path in given.items():
        _require_fitting(name, path)
    for path in given.values():
        RunDirectory.open(path).read_checkpoint()


def _require_fitting(name: str, path: Path) -> None:
    run = RunDirectory.open(path)
    settings = run.read_configuration()[0]
    data, option = name.removesuffix("-baseline"), f"--{name} {path}"
    accepted = POINT_DATASETS if data == "gaussians" else ("mnist",)
    if settings.dataset not in accepted:
        raise FigureError(f"{option}: it is a run on {settings.dataset}; name one on {' or '.join(accepted)}")
    if name.endswith("-baseline") and (settings.lambda_ or settings.listening):
        raise FigureError(
            f"{option}: it is no baseline, with λ {settings.lambda_:g} and listening {settings.listening:g}; "
            "name a run trained with --lambda 0 and --listening 0"
        )
    if not name.endswith("-baseline") and not settings.lambda_:
        raise FigureError(f"{option}: it is a baseline, its λ is 0; name it with --{name}-baseline")
    if data == "mnist" and (settings.styles < 2 or settings.noise < 1):
        raise FigureError(
            f"{option}: it has {settings.styles} continuous codes and {settings.noise} noise variables; "
            "name a run with at least 2 and 1"
        )


def _models(data: str, request: Request, device: torch.device, console: Console) -> Pair:
    """The baseline and the informative model on some data."""
    return (
        _model(f"{data}-baseline", request, device, console),
        _model(data, request, device, console),
    )


def _model(name: str, request: Request, device: torch.device, console: Console) -> TrainedModel:
    data_directory = request.data_directory if name.startswith("mnist") else None
    if name in request.runs:
        run, dataset = RunDirectory.open(request.runs[name]), None
        asked, done = run.read_configuration()[0].iterations, iterations_done(run)
        if done < asked:
            console.print(f"note: {run.path} has done {done:,} of {asked:,} iterations", soft_wrap=True)
    else:
        settings = quick_settings(name, request.seed)
        options: dict[str, Any] = {"data_directory": data_directory}
        if name.startswith("mnist"):
            options["hold_out"] = _QUICK_HOLD_OUT
        dataset = open_dataset(settings.dataset, **options)
        console.print(f"training a small run: {name}", soft_wrap=True)
        path = request.output / "runs" / f"quick-{name}"
        run = train_run(path, settings, dataset, options, device)
    with _watching(console) as progress:
        progress(f"reading {run.path}, and naming its categories by the training labels ...")
        return load_trained_model(run, data_directory, dataset)


def _draw(number: int, request: Request, models: dict[str, Pair], device: torch.device, console: Console) -> Drawing:
    if number == 1:
        return smoothing.draw(
            smoothing.panel_settings(request.quick, request.seed),
            open_dataset("mnist", data_directory=request.data_directory),
            request.output / "runs",
            f"{'quick-' if request.quick else ''}figure-1",
            request.data_directory,
            device,
            lambda text: console.print(text, soft_wrap=True),
        )
    if number == 2:
        with _watching(console) as progress:
            return information_plan.draw(request.quick, progress)
    if number == 3:
        return categories.draw(models["gaussians"], models["mnist"], request.seed)
    return traversals.draw(models["mnist"], request.seed)


@contextmanager
def _watching(console: Console) -> Iterator[Progress]:
    """Shows what is going on: one line that changes on a terminal, a line now and then elsewhere."""
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status("") as status:
            yield status.update
        return
    last = -_LINE_SECONDS

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            console.print(text, soft_wrap=True)
            last = time.monotonic()

    yield say
