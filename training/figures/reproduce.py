"""From the command line's words to the figures: checks everything first, then trains what is missing and draws."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from ..launch import choose_device, iterations_done
from ..progress import plain_console
from ..run_directory import RunDirectory
from ..trained_model import TrainedModel, load_trained_model
from . import categories, information_plan, smoothing, traversals
from .captions import versions
from .drawing import Drawing, save
from .runs import FigureError, FigureRun, train_run
from .selection import RUNS_OF, Request, Selection, select

_LINE_SECONDS = 15.0  # between lines of progress where there is no terminal

Progress = Callable[[str], None]
Pair = tuple[TrainedModel, TrainedModel]


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
        EvaluationError: a file cannot be written.
        OSError: a directory cannot be made.
    """
    device = choose_device(request.device)
    selection = select(request)
    request.output.mkdir(parents=True, exist_ok=True)
    if not os.access(request.output, os.W_OK):
        raise FigureError(f"cannot write to {request.output}: make it writable, or name another with --output")
    console = plain_console()
    models: dict[str, Pair] = {}
    written = []
    for number in sorted(set(request.figures)):
        for data in RUNS_OF[number]:
            if data not in models:
                baseline, informative = selection.pairs[data]
                models[data] = _model(baseline, device, console), _model(informative, device, console)
        drawing = _draw(number, request, selection, models, device, console)
        numbers = {"figure": number, "quick": request.quick, **drawing.numbers, "versions": versions()}
        written += save(Drawing(drawing.figure, numbers), request.output, request.name(f"figure-{number}"))
        console.print(f"figure {number}: {shlex.quote(str(written[-2]))}", soft_wrap=True)
    return written


def _model(run: FigureRun, device: torch.device, console: Console) -> TrainedModel:
    if run.given:
        directory = RunDirectory.open(run.path)
        asked, done = run.settings.iterations, iterations_done(directory)
        if done < asked:
            console.print(f"note: {run.path} has done {done:,} of {asked:,} iterations", soft_wrap=True)
    else:
        console.print(f"training a small run: {run.path.name}", soft_wrap=True)
        directory = train_run(run, device)
    with _watching(console) as progress:
        progress(f"reading {run.path}, and naming its categories by the training labels ...")
        return load_trained_model(directory, dataset=run.dataset)


def _draw(
    number: int,
    request: Request,
    selection: Selection,
    models: dict[str, Pair],
    device: torch.device,
    console: Console,
) -> Drawing:
    if number == 1:
        return smoothing.draw(selection.panels, device, lambda text: console.print(text, soft_wrap=True))
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
            yield lambda text: status.update(Text(text))
        return
    last = -_LINE_SECONDS

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            console.print(text, soft_wrap=True)
            last = time.monotonic()

    yield say
