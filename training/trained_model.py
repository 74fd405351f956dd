"""A finished run, read back for use: what naming, evaluation and export start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoint import CheckpointMismatchError, require_configuration, restore_networks
from .configuration import Configuration
from .datasets import Dataset, open_dataset
from .labelling import NamedCategory, name_categories
from .networks import Networks, inference_copy
from .randomness import stream
from .run_directory import RunDirectory, RunDirectoryError
from .trainer import make_networks

_STATISTICS_BATCHES = 20
_STATISTICS_BATCH_SIZE = 500


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for inference.

    Attributes:
        configuration: of the run.
        dataset: that it was trained on.
        networks: in evaluation mode, with running statistics of the final weights.
        categories: what each category came to mean.
        checkpoint_sha256: of the checkpoint file.
        iteration: of the checkpoint.
    """

    configuration: Configuration
    dataset: Dataset
    networks: Networks
    categories: list[NamedCategory]
    checkpoint_sha256: str
    iteration: int


class TrainedNetworks(NamedTuple):
    """What a run's checkpoint holds, ready for inference."""

    networks: Networks  # in evaluation mode, on the CPU, with running statistics of the final weights
    checkpoint_sha256: str
    iteration: int
    random: torch.Generator  # the stream that the statistics were drawn from, for what is drawn next


def reopen_dataset(data: dict[str, Any], name: str, data_directory: Path | None = None) -> Dataset:
    """Opens the data of a run again.

    Args:
        data: the "data" of its config.json.
        name: of the data set.
        data_directory: where the data is now, if it has moved.

    Raises:
        DatasetError: the data is no longer there.
        RunDirectoryError: it is not what it was, or `data` is damaged.
    """
    with _damage_named():
        options = dict(data["options"])
        recorded = options.pop("data_directory")
        directory = data_directory or (Path(recorded) if recorded else None)
        dataset = open_dataset(name, data_directory=directory, **options)
    require_same_data(data, dataset)
    return dataset


def require_same_data(data: dict[str, Any], dataset: Dataset) -> None:
    """Checks that a data set is the one that a run was trained on.

    Args:
        data: the "data" of its config.json.
        dataset: open.

    Raises:
        RunDirectoryError: it is not, or `data` is damaged.
    """
    if differing := recorded_differences(data, dataset):
        raise RunDirectoryError(
            f"the data is not what the run was trained on: its {', '.join(differing)} changed since; "
            "restore the data, or name where it is now with --data-dir"
        )


def recorded_differences(data: dict[str, Any], dataset: Dataset) -> list[str]:
    """The facts in which a data set is not the one that a run was trained on; see require_same_data.

    Raises:
        RunDirectoryError: `data` is damaged.
    """
    with _damage_named():
        then, now = data["facts"], json.loads(json.dumps(dataset.describe()))
        return sorted(key for key in {*then, *now} if then.get(key) != now.get(key))


def read_networks(run: RunDirectory, dataset: Dataset) -> TrainedNetworks:
    """Reads the networks of a run's checkpoint, with batch-norm statistics of their final weights.

    Args:
        run: with a checkpoint, finished or not.
        dataset: that it was trained on.

    Raises:
        RunDirectoryError: the configuration or checkpoint is missing, damaged or foreign, or the data is other data.
    """
    configuration, data = run.read_configuration()
    checkpoint = run.read_checkpoint()
    require_same_data(data, dataset)
    dataset = dataset.to(torch.device("cpu"))
    networks = make_networks(configuration, dataset.sample_shape)
    try:
        require_configuration(checkpoint.header, configuration)
        restore_networks(networks, checkpoint.tensors)
        iteration = int(checkpoint.header["iteration"])
    except (CheckpointMismatchError, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{run.checkpoint_path} does not fit config.json beside it: {error}") from error
    random = stream(configuration.seed, "reading back")
    networks = inference_copy(
        networks,
        samples=_draws(dataset.draw, random),
        latents=_draws(configuration.latent_space.draw, random),
    )
    return TrainedNetworks(networks, checkpoint.sha256, iteration, random)


def load_trained_model(
    run: RunDirectory, data_directory: Path | None = None, dataset: Dataset | None = None
) -> TrainedModel:
    """Reads a run's checkpoint and works out what its categories mean: read_networks, then name_categories.

    Everything is computed on the CPU from fixed seeds, so that the same run gives the same
    model every time.

    Args:
        run: with a checkpoint, finished or not.
        data_directory: where the data is now, if it has moved.
        dataset: the data, where it is open already.

    Raises:
        RunDirectoryError: the configuration or checkpoint is missing, damaged or foreign, or the data is other data.
        DatasetError: the data cannot be opened.
    """
    configuration, data = run.read_configuration()
    if dataset is None:
        dataset = reopen_dataset(data, configuration.dataset, data_directory)
    dataset = dataset.to(torch.device("cpu"))
    networks, sha256, iteration, random = read_networks(run, dataset)
    return TrainedModel(
        configuration=configuration,
        dataset=dataset,
        networks=networks,
        categories=name_categories(networks, dataset, configuration.latent_space, random),
        checkpoint_sha256=sha256,
        iteration=iteration,
    )


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunDirectoryError(f'the "data" of config.json is damaged: {error!r}') from error


def _draws(draw: Callable[[int, torch.Generator], Tensor], random: torch.Generator) -> Iterator[Tensor]:
    return (draw(_STATISTICS_BATCH_SIZE, random) for _ in range(_STATISTICS_BATCHES))
