"""The runs that figures show: those that a person trained, and those trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..configuration import Configuration
from ..datasets import Dataset
from ..launch import run_in_progress
from ..progress import ProgressReporter
from ..run_directory import RunDirectory, RunDirectoryError
from ..trained_model import require_same_data
from ..trainer import Schedule

_SCHEDULE = Schedule(log_every=10, picture_every=0, checkpoint_every=50)


class FigureError(Exception):
    """A figure that cannot be drawn as asked; the message names the remedy."""


@dataclass(frozen=True)
class FigureRun:
    """A run that a figure shows.

    Attributes:
        path: of its directory.
        settings: of the run.
        dataset: on the CPU.
        data_directory: that the data was read from; None for the default.
        given: whether a person trained it; else it is trained on the spot.
    """

    path: Path
    settings: Configuration
    dataset: Dataset
    data_directory: Path | None = None
    given: bool = False


def require_usable(run: FigureRun) -> None:
    """Checks, without making anything, that a run can be trained, continued or found finished in its directory.

    Raises:
        FigureError: the directory holds something else, or a run with other settings or on other data.
        RunDirectoryError: it cannot be read or written.
    """
    remedy = "name another directory with --output, or remove that one"
    if not (run.path / "config.json").exists():
        held = list(run.path.iterdir()) if run.path.is_dir() else []
        # What is hidden is left over from a start that was cut short.
        if any(not each.name.startswith(".") for each in held):
            raise FigureError(f"{run.path} is not empty and holds no run: {remedy}")
        if not held:
            RunDirectory.require_free(run.path)
        return
    settings, data = RunDirectory.open(run.path).read_configuration()
    held_values, wanted = settings.to_mapping(), run.settings.to_mapping()
    if differing := [name for name in wanted if wanted[name] != held_values[name]]:
        raise FigureError(f"{run.path} is a run with other settings ({', '.join(differing)}): {remedy}")
    try:
        require_same_data(data, run.dataset)
    except RunDirectoryError as error:
        raise FigureError(f"{run.path} is a run on other data: {remedy}") from error


def train_run(run: FigureRun, device: torch.device) -> RunDirectory:
    """Trains a run, continues one that was interrupted, or finds it finished already.

    Raises:
        FigureError: the directory holds something else, or a run with other settings or on other data.
        RunDirectoryError: it cannot be read or written.
        TrainingDivergedError: a value became infinite or NaN.
        OSError: the directory cannot be made.
    """
    require_usable(run)
    run.path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(run.path)
    options = {"data_directory": str(run.data_directory.resolve()) if run.data_directory else None}
    with run_in_progress(directory, run.settings, run.dataset, options, device) as trainer:
        if trainer is not None:
            with ProgressReporter(run.settings, trainer.iteration, resumed=trainer.iteration > 0) as reporter:
                trainer.train(_SCHEDULE, reporter, lambda: False)
    return directory
