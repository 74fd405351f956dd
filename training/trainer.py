"""The training loop: iterations, the log, pictures, checkpoints, and resuming from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .algorithm import InformativeSinkhorn, Statistics
from .checkpoint import CheckpointMismatchError, capture, require_configuration, restore
from .code_distribution import make_code_distribution
from .configuration import Configuration
from .datasets import Dataset
from .networks import Networks
from .pictures import SnapshotLatents
from .randomness import derived_seed, stream
from .run_directory import RunDirectory, RunDirectoryError

FORECAST_AT = 20
_FORECAST_FROM = 3  # the first iterations pay for warming up


class TrainingDivergedError(Exception):
    """A value became infinite or NaN; the message names the iteration and what is kept."""


class Reporter(Protocol):
    """Who is told how training goes."""

    def iterated(self, iteration: int) -> None:
        """An iteration is done."""

    def logged(self, record: dict[str, Any]) -> None:
        """A line was added to metrics.jsonl."""

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
        self.networks = make_networks(settings, dataset.sample_shape).to(device)
        self.algorithm = InformativeSinkhorn(self.networks, dataset, settings)
        self.random = stream(settings.seed, "training", device)
        self.snapshot = SnapshotLatents(settings.latent_space, dataset, stream(settings.seed, "pictures", device))
        self.iteration = 0
        self.checkpointed_iteration: int | None = None
        self.totals = _Totals(device)

    def resume(self) -> None:
        """Takes up the run where its checkpoint left it: on a CPU, bit for bit.

        Raises:
            RunDirectoryError: the checkpoint is missing, damaged, foreign, or of another configuration or device.
        """
        tensors, header, _ = self.run.read_checkpoint()
        path = self.run.checkpoint_path
        try:
            self._require_same(header)
            totals = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_Totals.PREFIX)}
            restore(self.algorithm, self.random, tensors)
            self.totals.restore(totals, header["log_counts"])
            self.iteration = self.checkpointed_iteration = int(header["iteration"])
        except CheckpointMismatchError as error:
            raise RunDirectoryError(f"cannot resume from {path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error!r}") from error
        self.run.forget_metrics_after(self.iteration)

    def train(self, schedule: Schedule, reporter: Reporter, should_stop: Callable[[], bool]) -> bool:
        """Iterates until the configured number or until told to stop; either way a checkpoint is left.

        Args:
            schedule: what happens how often; it does not change what is learned.
            reporter: told of every iteration.
            should_stop: asked after each iteration.

        Returns:
            Whether the run is finished.

        Raises:
            TrainingDivergedError: a value became infinite or NaN.
            RunDirectoryError: a file could not be written.
        """
        started = logged = time.perf_counter()
        first, warm_up = self.iteration, self.settings.warm_up
        while self.iteration < self.settings.iterations:
            self.iteration += 1
            self.totals.add(self.algorithm.iterate(self.iteration, self.random), self.iteration)
            reporter.iterated(self.iteration)
            # The warm-up has a pace of its own.
            done = self.iteration - (warm_up if first < warm_up < self.iteration else first)
            if done == _FORECAST_FROM:
                self._synchronise()
                started = time.perf_counter()
            elif done == FORECAST_AT:
                self._synchronise()
                reporter.forecast((time.perf_counter() - started) / (FORECAST_AT - _FORECAST_FROM))
            last = self.iteration == self.settings.iterations
            stop = should_stop() and not last
            log = last or _due(self.iteration, schedule.log_every)
            picture = last or _due(self.iteration, schedule.picture_every)
            checkpoint = last or stop or _due(self.iteration, schedule.checkpoint_every)
            if log or picture or checkpoint:
                self._require_finite()
            try:
                if log:
                    now = time.perf_counter()
                    self._log(now - logged, reporter)
                    logged = now
                if picture:
                    self.run.write_picture(self.iteration, lambda path: self.snapshot.save(self.networks, path))
            finally:  # what fails above must not cost the weights
                if checkpoint:
                    self.checkpoint()
            if stop:
                return False
        return True

    def checkpoint(self) -> None:
        """Writes the checkpoint.

        Raises:
            RunDirectoryError: it cannot be written; the earlier one is whole.
        """
        header = {
            "iteration": self.iteration,
            "device": self.device.type,
            "configuration": self.settings.to_mapping(),
            "log_counts": self.totals.counts,
        }
        self.run.write_checkpoint(capture(self.algorithm, self.random) | self.totals.capture(), header)
        self.checkpointed_iteration = self.iteration

    def _require_same(self, header: dict[str, Any]) -> None:
        require_configuration(header, self.settings)
        if header["device"] != self.device.type:
            raise CheckpointMismatchError(f"it was trained on {header['device']}: use --device {header['device']}")

    def _log(self, seconds: float, reporter: Reporter) -> None:
        samples = self.totals.iterations * self.settings.batch_size
        record = {"iteration": self.iteration, **self.totals.averages()}
        record |= self.algorithm.generator_diagnostics(
            stream(self.settings.seed, f"diagnostics {self.iteration}", self.device)
        )
        record |= {"samples_per_second": samples / seconds, "seconds": seconds}
        self.totals = _Totals(self.device)
        self.run.append_metrics(record)
        reporter.logged(record)

    def _require_finite(self) -> None:
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in self.networks.parameters())
        iteration, names = self.totals.first_failure()
        if iteration is None and not finite:
            iteration, names = self.iteration, ["the weights"]
        if iteration is not None:
            kept = f"the checkpoint of iteration {self.checkpointed_iteration} is kept"
            raise TrainingDivergedError(
                f"training diverged at iteration {iteration}: {', '.join(names)} became infinite or NaN; "
                f"{kept if self.checkpointed_iteration else 'there is no checkpoint yet'}; "
                "start another run with a smaller learning rate or a larger --epsilon"
            )

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Totals:
    """Sums of statistics since the last line of the log, kept on the device so that only the log waits for it."""

    PREFIX = "log_sums."

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: Statistics = {}
        self.counts: dict[str, int] = {}
        self.failed_at = torch.zeros((), dtype=torch.int64, device=device)
        self.failures: dict[str, Tensor] = {}

    @property
    def iterations(self) -> int:
        return max(self.counts.values(), default=0)

    def add(self, statistics: Statistics, iteration: int) -> None:
        failed = torch.zeros_like(self.failed_at, dtype=torch.bool)
        for name, value in statistics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
            bad = ~torch.isfinite(value)
            # What fails in later iterations only follows from the first failure.
            earlier = self.failures.get(name, torch.zeros_like(failed))
            self.failures[name] = earlier | (bad & (self.failed_at == 0))
            failed |= bad
        self.failed_at = torch.where((self.failed_at == 0) & failed, iteration, self.failed_at)

    def averages(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def first_failure(self) -> tuple[int | None, list[str]]:
        iteration = int(self.failed_at)
        return iteration or None, [name for name, failed in self.failures.items() if bool(failed)]

    def capture(self) -> dict[str, Tensor]:
        return {self.PREFIX + name: total for name, total in self.sums.items()}

    def restore(self, tensors: dict[str, Tensor], counts: dict[str, int]) -> None:
        self.sums = {name.removeprefix(self.PREFIX): total.to(self.device) for name, total in tensors.items()}
        self.counts = {name: int(counts[name]) for name in self.sums}


def make_networks(settings: Configuration, sample_shape: tuple[int, ...]) -> Networks:
    """The networks that the settings ask for, their weights drawn from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "weights"))
        return Networks(
            sample_shape,
            settings.latent_space,
            code_outputs=make_code_distribution(settings).outputs,
            over_clusters=settings.over_clusters if settings.invariance else 0,
            merging=settings.merge_after > 0 and not settings.anchor_labels,
            anchored=settings.anchored_samples,
            averaging=settings.averaging > 0,
            precision=settings.precision,
        )


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0
