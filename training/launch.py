"""From the command line's words to a run: checks everything first, then trains, then says what came of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .configuration import Configuration, preset_configuration
from .datasets import Dataset, open_dataset
from .labelling import unreachable_labels
from .progress import ProgressReporter
from .run_directory import RunDirectory
from .trained_model import TrainedModel, load_trained_model, reopen_dataset
from .trainer import Schedule, Trainer


class LaunchError(Exception):
    """A run that cannot start as asked; the message names the remedy."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        dataset: the name of the data set.
        output: the run directory.
        preset: the preset's name; None for the default.
        overrides: hyperparameters given explicitly.
        data_options: data_directory, sigma and channels, None where not given.
        device: "auto", "cpu" or "cuda".
        schedule: what happens how often.
    """

    dataset: str
    output: Path
    preset: str | None
    overrides: dict[str, Any]
    data_options: dict[str, Any]
    device: str
    schedule: Schedule


def resolve(request: Request) -> Configuration:
    """The configuration of a new run.

    Raises:
        ConfigurationError: a value is unknown or out of range.
    """
    return preset_configuration(request.dataset, request.preset or "paper", **request.overrides)


def start(request: Request) -> int:
    """Trains a new run.

    Returns:
        The process's exit code: 0, or 128 plus the signal that stopped it.
    """
    settings, device = resolve(request), choose_device(request.device)
    run = RunDirectory.create(request.output)
    dataset = open_dataset(request.dataset, **request.data_options)
    directory = request.data_options["data_directory"]
    options = request.data_options | {"data_directory": str(directory.resolve()) if directory else None}
    run.write_configuration(settings, {"options": options, "facts": dataset.describe()})
    return _train(Trainer(run, settings, dataset.to(device), device), request)


def resume(request: Request) -> int:
    """Continues an earlier run, perhaps for more iterations than it was first asked for.

    Returns:
        The process's exit code: 0, or 128 plus the signal that stopped it.

    Raises:
        LaunchError: another hyperparameter than the number of iterations was given.
    """
    run = RunDirectory.open(request.output)
    settings, data = run.read_configuration()
    fixed = sorted(name for name in request.overrides if name != "iterations")
    given = fixed + [name for name in ("sigma", "channels") if request.data_options[name] is not None]
    if request.preset is not None:
        given.append("preset")
    if given:
        options = ", ".join("--" + name.rstrip("_").replace("_", "-") for name in given)
        raise LaunchError(f"{options} cannot change on --resume: leave them out, or start another run with --output")
    if request.dataset != settings.dataset:
        raise LaunchError(f"{request.output} is a run on {settings.dataset}, not {request.dataset}")
    device = choose_device(request.device)
    dataset = reopen_dataset(data, settings.dataset, request.data_options["data_directory"])
    if "iterations" in request.overrides:
        settings = replace(settings, iterations=request.overrides["iterations"])
    trainer = Trainer(run, settings, dataset.to(device), device)
    trainer.resume()
    if trainer.iteration >= settings.iterations:
        raise LaunchError(
            f"{request.output} has finished its {settings.iterations:,} iterations: "
            f"ask for more with --iterations, or export it with infosink-export {request.output}"
        )
    run.write_configuration(settings, data)
    return _train(trainer, request)


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" means here.

    Raises:
        LaunchError: CUDA was asked for and cannot be had.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise LaunchError("--device cuda: torch finds no CUDA device here; use --device cpu, or install a CUDA build")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def _train(trainer: Trainer, request: Request) -> int:
    console = Console(stderr=True, highlight=False)
    settings = trainer.settings
    console.print(
        f"{settings.dataset}: preset {settings.preset}, {settings.solver}, ε {settings.epsilon:g}, "
        f"λ {settings.lambda_:g}, batch {settings.batch_size}, {settings.iterations:,} iterations "
        f"on {trainer.device.type}, to {request.output}"
        + (f", from iteration {trainer.iteration:,} on" if trainer.iteration else ""),
        soft_wrap=True,
    )
    with _stopping() as stop, ProgressReporter(settings, trainer.iteration) as reporter:
        finished = trainer.train(request.schedule, reporter, lambda: bool(stop))
    if not finished:
        console.print(
            f"stopped; iteration {trainer.iteration:,} is saved. Continue with: "
            f"infosink-train {settings.dataset} --output {request.output} --resume",
            soft_wrap=True,
        )
        return 128 + stop[0]
    console.print("naming the categories by the training labels ...")
    report(load_trained_model(trainer.run), request.output)
    return 0


def report(model: TrainedModel, output: Path) -> None:
    """Prints what each category came to mean, and which labels are out of reach, on standard output."""
    console = Console(highlight=False)
    dataset: Dataset = model.dataset
    table = Table("category", "label", "share with that label", "share of the data", "read back from samples")
    for index, category in enumerate(model.categories):
        table.add_row(
            str(index),
            category.label,
            *(f"{s:.1%}" for s in (category.label_share, category.sample_share, category.recovery)),
        )
    console.print(table)
    if missing := unreachable_labels(model.categories, dataset):
        remedies = ["train longer (--resume --iterations N)", "give more categories (--categories N)"]
        if dataset.frame is not None and not model.configuration.invariance:
            remedies.insert(0, "use --preset quick, whose Q is invariant to small deformations")
        console.print(
            f"out of reach, as no category bears them: {', '.join(missing)}. What helps: {'; '.join(remedies)}.",
            soft_wrap=True,
        )
    elif dataset.label_names:
        console.print(f"all {len(dataset.label_names)} labels can be sampled")
    console.print(f"next: infosink-export {output}", soft_wrap=True)


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Collects the first INT or TERM in a list; a second one ends the process as usual."""
    received: list[int] = []
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        received.append(number)
        for each, handler in earlier.items():
            signal.signal(each, handler)

    for number in earlier:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
