"""The training loop: iterations, the log, pictures, checkpoints, and resuming from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .algorithm import InformativeSinkhorn, Statistics
from .configuration import Configuration
from .datasets import Dataset
from .networks import Networks
from .pictures import SnapshotLatents
from .run_directory import RunDirectory, RunDirectoryError

FORECAST_AT = 20
_FORECAST_FROM = 3  # the first iterations pay for warming up


class TrainingDivergedError(Exception):
    """A value became infinite or NaN; the message names the iteration and what is kept."""


class Reporter(Protocol):
    """Who is told how training goes."""

    def tick(self, record: dict[str, Any]) -> None:
        """The averages since the last tick, as they are written to metrics.jsonl."""

    def forecast(self, seconds_per_iteration: float) -> None:
        """How long an iteration takes, once it is known."""


@dataclass(frozen=True)
class Schedule:
    """How often, in iterations, things happen beside training; 0 for never, but for the last iteration.

    Attributes:
        log_every: a line of metrics.jsonl.
        picture_every: a picture of samples.
        checkpoint_every: a checkpoint.
    """

    log_every: int = 20
    picture_every: int = 200
    checkpoint_every: int = 500


class Trainer:
    """A run in progress.

    Attributes:
        iteration: the number of iterations done.
        networks: being trained.
    """

    def __init__(self, run: RunDirectory, settings: Configuration, dataset: Dataset, device: torch.device) -> None:
        self.run, self.settings, self.dataset, self.device = run, settings, dataset, device
        torch.manual_seed(settings.seed)  # the initial weights
        self.networks = make_networks(settings, dataset.sample_shape).to(device)
        self.algorithm = InformativeSinkhorn(self.networks, dataset, settings)
        self.random = torch.Generator(device).manual_seed(settings.seed)
        self.snapshot = SnapshotLatents(settings.latent_space, dataset, settings.seed, device)
        self.iteration = 0
        self.checkpointed_iteration: int | None = None

    def resume(self) -> None:
        """Takes up the run where its checkpoint left it: on a CPU, bit for bit.

        Raises:
            RunDirectoryError: the checkpoint is missing, damaged, foreign, or of other networks.
        """
        tensors, header, _ = self.run.read_checkpoint()
        path = self.run.checkpoint_path
        try:
            restore_networks(self.networks, tensors)
            for name, optimiser in self.algorithm.optimisers.items():
                _restore_optimiser(optimiser, f"optimisers.{name}.", tensors)
            self.random.set_state(tensors["random"])
            self.iteration = self.checkpointed_iteration = int(header["iteration"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise RunDirectoryError(f"{path} does not fit config.json beside it") from error
        self.run.forget_metrics_after(self.iteration)

    def train(self, schedule: Schedule, reporter: Reporter, should_stop: Callable[[], bool]) -> bool:
        """Iterates until the configured number or until told to stop; either way a checkpoint is left.

        Args:
            schedule: what happens how often.
            reporter: told of every tick.
            should_stop: asked after each iteration.

        Returns:
            Whether the run is finished.

        Raises:
            TrainingDivergedError: a value became infinite or NaN.
            RunDirectoryError: a file could not be written.
        """
        totals = _Totals(self.device)
        started = tick_started = time.perf_counter()
        first = self.iteration
        while self.iteration < self.settings.iterations:
            self.iteration += 1
            totals.add(self.algorithm.iterate(self.iteration, self.random), self.iteration)
            done = self.iteration - first
            if done == _FORECAST_FROM:
                self._synchronise()
                started = time.perf_counter()
            elif done == FORECAST_AT:
                self._synchronise()
                reporter.forecast((time.perf_counter() - started) / (FORECAST_AT - _FORECAST_FROM))
            last = self.iteration == self.settings.iterations
            stop = should_stop() and not last
            if last or stop or _due(self.iteration, schedule.checkpoint_every):
                self._check(totals)
            if last or _due(self.iteration, schedule.log_every):
                self._check(totals)
                now = time.perf_counter()
                self._log(totals, now - tick_started, reporter)
                totals, tick_started = _Totals(self.device), now
            if last or _due(self.iteration, schedule.picture_every):
                self._picture()
            if last or stop or _due(self.iteration, schedule.checkpoint_every):
                self.checkpoint()
            if stop:
                return False
        return True

    def checkpoint(self) -> None:
        """Writes the checkpoint."""
        tensors = {f"networks.{name}": tensor for name, tensor in self.networks.state_dict().items()}
        for name, optimiser in self.algorithm.optimisers.items():
            tensors |= _optimiser_tensors(optimiser, f"optimisers.{name}.")
        tensors["random"] = self.random.get_state()
        self.run.write_checkpoint(tensors, {"iteration": self.iteration})
        self.checkpointed_iteration = self.iteration

    def _log(self, totals: _Totals, seconds: float, reporter: Reporter) -> None:
        record = {"iteration": self.iteration, **totals.averages()}
        record |= self.algorithm.health(self.random)
        images = totals.count * self.settings.batch_size
        record |= {"samples_per_second": images / seconds, "seconds": seconds}
        try:
            self.run.append_metrics(record)
        except OSError as error:
            raise RunDirectoryError(f"cannot write metrics.jsonl: {error.strerror}; {self._kept()}") from error
        reporter.tick(record)

    def _picture(self) -> None:
        try:
            self.run.write_picture(self.iteration, lambda path: self.snapshot.save(self.networks, path))
        except OSError as error:
            raise RunDirectoryError(f"cannot write a picture: {error.strerror}; {self._kept()}") from error

    def _check(self, totals: _Totals) -> None:
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in self.networks.parameters())
        iteration, names = totals.first_failure()
        if iteration is None and not finite:
            iteration, names = self.iteration, ["the weights"]
        if iteration is not None:
            raise TrainingDivergedError(
                f"training diverged at iteration {iteration}: {', '.join(names)} became infinite or NaN; "
                f"{self._kept()}; try a smaller learning rate or a larger --epsilon"
            )

    def _kept(self) -> str:
        if self.checkpointed_iteration is None:
            return "there is no checkpoint yet"
        return f"the checkpoint of iteration {self.checkpointed_iteration} is kept"

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Totals:
    """Sums of statistics, kept on the device so that only a tick waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self.sums: Statistics = {}
        self.counts: dict[str, int] = {}
        self.failed_at = torch.zeros((), dtype=torch.int64, device=device)
        self.failures: dict[str, Tensor] = {}

    def add(self, statistics: Statistics, iteration: int) -> None:
        self.count += 1
        failed = torch.zeros_like(self.failed_at, dtype=torch.bool)
        for name, value in statistics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
            bad = ~torch.isfinite(value)
            # What fails later in the same tick only follows from the first failure.
            earlier = self.failures.get(name, torch.zeros_like(failed))
            self.failures[name] = earlier | (bad & (self.failed_at == 0))
            failed |= bad
        self.failed_at = torch.where((self.failed_at == 0) & failed, iteration, self.failed_at)

    def averages(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def first_failure(self) -> tuple[int | None, list[str]]:
        iteration = int(self.failed_at)
        return iteration or None, [name for name, failed in self.failures.items() if bool(failed)]


def make_networks(settings: Configuration, sample_shape: tuple[int, ...]) -> Networks:
    """The networks that the settings ask for, with fresh weights."""
    return Networks(
        sample_shape,
        settings.latent_space,
        over_clusters=settings.over_clusters if settings.invariance else 0,
        averaging=settings.averaging > 0,
    )


def restore_networks(networks: Networks, tensors: dict[str, Tensor]) -> None:
    """Loads the weights of a checkpoint.

    Raises:
        RuntimeError: they do not fit.
    """
    prefix = "networks."
    networks.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    )


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


def _optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{prefix}{index}.{key}": tensor for index, entry in state.items() for key, tensor in entry.items()}


def _restore_optimiser(optimiser: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
