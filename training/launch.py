"""From the command line's words to a run: checks everything first, then trains, then says what came of it."""

from __future__ import annotations

import os
import platform
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .anchors import require_anchors
from .configuration import DEFAULT_PRESETS, Configuration, option_of, preset_configuration
from .datasets import Dataset, open_dataset
from .labelling import unreachable_labels
from .progress import ProgressReporter, plain_console
from .run_directory import RunDirectory, RunDirectoryError
from .source_commit import source_commit
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
        data_options: data_directory, sigma, channels and hold_out, None where not given.
        device: "auto", "cpu" or "cuda".
        schedule: what happens how often.
        resume: whether to continue the run at `output`.
    """

    dataset: str
    output: Path
    preset: str | None
    overrides: dict[str, Any]
    data_options: dict[str, Any]
    device: str
    schedule: Schedule
    resume: bool


def resolve(request: Request) -> Configuration:
    """The configuration of the run asked for, without doing any of it.

    Raises:
        ConfigurationError: a value is unknown or out of range.
        LaunchError: the device cannot be had, or something is asked for that cannot change on resuming.
        RunDirectoryError: there is no run to resume.
    """
    choose_device(request.device)
    if request.resume:
        return _resumed_settings(request, *RunDirectory.open(request.output).read_configuration())[0]
    preset = request.preset or DEFAULT_PRESETS.get(request.dataset, "paper")
    return preset_configuration(request.dataset, preset, **request.overrides)


def start(request: Request) -> int:
    """Trains a new run.

    Returns:
        The process's exit code: 0, or 128 plus the signal that stopped it.
    """
    settings, device = resolve(request), choose_device(request.device)
    RunDirectory.require_free(request.output)
    dataset = open_dataset(request.dataset, **request.data_options)
    require_anchors(settings, dataset)
    run = RunDirectory.create(request.output)
    directory = request.data_options["data_directory"]
    options = request.data_options | {"data_directory": str(directory.resolve()) if directory else None}
    return _train(run, settings, dataset, options, device, request)


def resume(request: Request) -> int:
    """Continues an earlier run, perhaps for more iterations than it was first asked for.

    A run that was stopped before its first checkpoint starts again.

    Returns:
        The process's exit code: 0, or 128 plus the signal that stopped it.

    Raises:
        LaunchError: another hyperparameter than the number of iterations was given.
    """
    run = RunDirectory.open(request.output)
    settings, data = _resumed_settings(request, *run.read_configuration())
    device = choose_device(request.device)
    moved = request.data_options["data_directory"]
    dataset = reopen_dataset(data, settings.dataset, moved)
    options = data["options"] | ({"data_directory": str(moved.resolve())} if moved else {})
    return _train(run, settings, dataset, options, device, request)


@contextmanager
def run_in_progress(
    run: RunDirectory, settings: Configuration, dataset: Dataset, options: dict[str, Any], device: torch.device
) -> Iterator[Trainer | None]:
    """Within, nobody else trains in the run directory, and the run stands where its checkpoint left it.

    A run without a checkpoint begins, or begins again.

    Args:
        run: a new one, or one of the same settings, whatever the number of iterations.
        settings: of the run.
        dataset: on the CPU.
        options: that the data was opened with, for config.json.
        device: to train on.

    Yields:
        What trains it on; None where all its iterations are done.

    Raises:
        RunDirectoryError: the checkpoint is damaged, foreign, or of another configuration or device; the directory
            cannot be written to, or another process is training in it.
    """
    data = {"options": options, "facts": dataset.describe()}
    with run.locked():
        if iterations_done(run) >= settings.iterations:
            yield None
            return
        begun = run.checkpoint_path.exists()
        if not begun:
            # Before what may fail or be interrupted, so that there is a run to resume.
            run.write_configuration(settings, data, _environment(device))
            run.forget_metrics_after(0)
        trainer = Trainer(run, settings, dataset.to(device), device)
        if begun:
            trainer.resume()
            run.write_configuration(settings, data, _environment(device))
        yield trainer


def iterations_done(run: RunDirectory) -> int:
    """The iterations of a run's checkpoint; 0 before the first.

    Raises:
        RunDirectoryError: the checkpoint is damaged.
    """
    if not run.checkpoint_path.exists():
        return 0
    header = run.read_checkpoint().header
    try:
        return int(header["iteration"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{run.checkpoint_path} is damaged: {error!r}") from error


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" means here.

    Raises:
        LaunchError: CUDA was asked for and cannot be had.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise LaunchError("--device cuda: torch finds no CUDA device here; use --device cpu, or install a CUDA build")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; torch has no type of its own for that on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _resumed_settings(
    request: Request, settings: Configuration, data: dict[str, Any]
) -> tuple[Configuration, dict[str, Any]]:
    """The settings of a run to resume, with more iterations where they are asked for."""
    given = sorted(option_of(name) for name in request.overrides if name != "iterations")
    given += [option_of(name) for name in ("sigma", "channels", "hold_out") if request.data_options[name] is not None]
    given += ["--preset"] if request.preset is not None else []
    if given:
        raise LaunchError(
            f"{', '.join(given)} cannot change on --resume: leave it out, or start another run with --output"
        )
    if request.dataset != settings.dataset:
        raise LaunchError(f"{request.output} is a run on {settings.dataset}, not {request.dataset}")
    return replace(settings, iterations=request.overrides.get("iterations", settings.iterations)), data


def _train(
    run: RunDirectory,
    settings: Configuration,
    dataset: Dataset,
    options: dict[str, Any],
    device: torch.device,
    request: Request,
) -> int:
    with run_in_progress(run, settings, dataset, options, device) as trainer:
        if trainer is None:
            export = _command("infosink-export", request.output)
            raise LaunchError(
                f"{request.output} has done {iterations_done(run):,} iterations, and {settings.iterations:,} are asked "
                f"for: ask for more with --iterations, or export it with {export}"
            )
        return _train_on(trainer, request)


def _train_on(trainer: Trainer, request: Request) -> int:
    settings = trainer.settings
    resumed = trainer.iteration > 0
    with ProgressReporter(settings, trainer.iteration, resumed=resumed) as reporter, _stopping() as stop:
        reporter.say(
            f"{settings.dataset}: preset {settings.preset}, {settings.solver}, ε {settings.epsilon:g}, "
            f"λ {settings.lambda_:g}, batch {settings.batch_size}, {settings.iterations:,} iterations "
            f"on {trainer.device.type}, to {_shown(request.output)}"
            + (f", from iteration {trainer.iteration:,} on" if resumed else "")
        )
        if settings.preset == DEFAULT_PRESETS.get(settings.dataset) and request.preset is None and not resumed:
            reporter.say(
                f"{settings.preset} is the default here and goes past the paper: Sinkhorn's algorithm in place of the "
                "dual networks, categories merged from clusters that survive small deformations, and a generator "
                "that is told how Q reads it; --preset paper trains the paper's own"
            )
        try:
            finished = trainer.train(request.schedule, reporter, lambda: bool(stop))
        except (SystemExit, BrokenPipeError):
            # Nobody reads what is said any more; it is said between iterations, where the state is whole.
            trainer.checkpoint()
            raise
    console = plain_console()
    if not finished:
        device = () if request.device == "auto" else ("--device", request.device)
        again = _command("infosink-train", settings.dataset, "--output", request.output, *device, "--resume")
        console.print(f"stopped; iteration {trainer.iteration:,} is saved. Continue with: {again}", soft_wrap=True)
        return 128 + stop[0]
    console.print("naming the categories by the training labels ...")
    try:
        report(load_trained_model(trainer.run, dataset=trainer.dataset), request.output)
    except KeyboardInterrupt:
        console.print(
            f"the run is complete; its categories are named by {_command('infosink-export', request.output)} too",
            soft_wrap=True,
        )
        return 130
    return 0


def report(model: TrainedModel, output: Path) -> None:
    """Prints what each category came to mean, and which labels are out of reach, on standard output."""
    console = Console(highlight=False, markup=False, emoji=False)
    dataset: Dataset = model.dataset
    table = Table("category", "label", "share with that label", "share of the data", "read back from samples")
    for index, category in enumerate(model.categories):
        label = category.label or "(no sample)"
        label_share = f"{category.label_share:.1%}" if dataset.label_names else "no labels"
        table.add_row(str(index), Text(label), label_share, f"{category.sample_share:.1%}", f"{category.recovery:.1%}")
    console.print(table)
    if missing := unreachable_labels(model.categories, dataset):
        remedies = ["train longer (--resume --iterations N)", "give more categories in another run (--categories N)"]
        if dataset.frame is not None and not model.configuration.invariance:
            remedies.insert(0, "use --preset quick, whose Q is invariant to small deformations")
        console.print(
            f"out of reach, as no category bears them: {', '.join(missing)}. What helps: {'; '.join(remedies)}.",
            soft_wrap=True,
        )
    elif dataset.label_names:
        console.print(f"all {len(dataset.label_names)} labels can be sampled")
    console.print(f"next: {_command('infosink-export', output)}", soft_wrap=True)
    evaluate = _command("infosink-evaluate", output)
    console.print(f"before it, {evaluate} measures the run and names its styles", soft_wrap=True)


def _environment(device: torch.device) -> dict[str, Any]:
    """What a run's numbers depend on besides its configuration and data."""
    commit = source_commit()
    return {
        "infosink": version("infosink"),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    } | ({"commit": commit} if commit else {})


def _command(*words: str | Path) -> str:
    """A command as it can be typed."""
    return shlex.join(_shown(word) for word in words)


def _shown(word: str | Path) -> str:
    """A path or word with what no terminal can show written as escapes."""
    return str(word).encode("utf-8", "backslashreplace").decode()


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Collects the first INT, TERM or HUP in a list, and says so at once; a second one ends the process as usual.

    What is ignored stays so, as HUP is under nohup.
    """
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        received.append(number)
        with suppress(OSError):  # the terminal may be gone
            os.write(2, b"\nstopping after this iteration; once more to quit without saving\n")
        for each, handler in earlier.items():
            signal.signal(each, handler)

    for number in earlier:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
