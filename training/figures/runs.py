"""The runs behind the figures: those that a person trained, and small ones trained on the spot."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import CheckpointMismatchError, restore_networks
from ..configuration import Configuration
from ..datasets import Dataset
from ..networks import recompute_running_statistics
from ..progress import ProgressReporter
from ..randomness import stream
from ..run_directory import RunDirectory, RunDirectoryError
from ..trained_model import TrainedModel
from ..trainer import Schedule, Trainer, make_networks

_SCHEDULE = Schedule(log_every=10, picture_every=0, checkpoint_every=50)
_STATISTICS_BATCHES = 4
_STATISTICS_BATCH_SIZE = 500


class FigureError(Exception):
    """A figure that cannot be drawn as asked; the message names the remedy."""


def train_run(
    path: Path, settings: Configuration, dataset: Dataset, options: dict[str, Any], device: torch.device
) -> RunDirectory:
    """Trains a run, continues one that was interrupted, or finds it finished already.

    Args:
        path: of the run directory.
        settings: of the run.
        dataset: on the CPU.
        options: that the data was opened with, for config.json.
        device: to train on.

    Raises:
        FigureError: the directory holds a run with other settings.
        RunDirectoryError: it cannot be read or written.
        TrainingDivergedError: a value became infinite or NaN.
    """
    run = RunDirectory(path) if (path / "config.json").exists() else RunDirectory.create(path)
    with run.locked():
        if (path / "config.json").exists():
            _require_same(run, settings)
        else:
            directory = options.get("data_directory")
            options = options | {"data_directory": str(directory.resolve()) if directory else None}
            run.write_configuration(settings, {"options": options, "facts": dataset.describe()}, versions())
        if iterations_done(run) >= settings.iterations:
            return run
        trainer = Trainer(run, settings, dataset.to(device), device)
        if run.checkpoint_path.exists():
            trainer.resume()
        with ProgressReporter(settings, trainer.iteration, resumed=trainer.iteration > 0) as reporter:
            trainer.train(_SCHEDULE, reporter, lambda: False)
    return run


def iterations_done(run: RunDirectory) -> int:
    """The iterations of a run's checkpoint; 0 before the first.

    Raises:
        RunDirectoryError: the checkpoint is damaged.
    """
    if not run.checkpoint_path.exists():
        return 0
    try:
        return int(run.read_checkpoint().header["iteration"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{run.checkpoint_path} is damaged: {error!r}") from error


def trained_generator(run: RunDirectory, settings: Configuration, dataset: Dataset) -> nn.Module:
    """The generator of a run in evaluation mode, on the CPU, with running statistics of its final weights.

    It is what load_trained_model gives, without naming the categories, which takes a pass over the data.

    Raises:
        RunDirectoryError: the checkpoint is missing, damaged or foreign.
    """
    networks = make_networks(settings, dataset.sample_shape)
    try:
        restore_networks(networks, run.read_checkpoint().tensors)
    except CheckpointMismatchError as error:
        raise RunDirectoryError(f"{run.checkpoint_path} does not fit config.json beside it: {error}") from error
    generator = networks.sampling_generator
    random = stream(settings.seed, "reading back")
    latents = (settings.latent_space.draw(_STATISTICS_BATCH_SIZE, random) for _ in range(_STATISTICS_BATCHES))
    recompute_running_statistics(generator, latents)
    return generator.eval().requires_grad_(False)


def facts(model: TrainedModel) -> dict[str, Any]:
    """What a model is, for the numbers beside a figure: its settings, and which checkpoint it was read from."""
    return {
        "iteration": model.iteration,
        "checkpoint_sha256": model.checkpoint_sha256,
        "settings": model.configuration.to_mapping(),
    }


def versions() -> dict[str, str]:
    """What a figure's numbers depend on besides its settings."""
    return {
        "infosink": version("infosink"),
        "torch": torch.__version__,
        "matplotlib": version("matplotlib"),
        "machine": platform.machine(),
    }


def _require_same(run: RunDirectory, settings: Configuration) -> None:
    if run.read_configuration()[0] != settings:
        raise FigureError(
            f"{run.path} is a run with other settings: name another directory with --output, or remove that one"
        )
