"""Telling a person at a terminal, or a log file, how training goes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .configuration import Configuration
from .trainer import FORECAST_AT

_LOG_SECONDS = 15.0  # between lines where there is no terminal
_LONG_SECONDS = 3600.0


class ProgressReporter:
    """A progress bar on a terminal, a line now and then elsewhere; on standard error."""

    def __init__(self, settings: Configuration, done: int) -> None:
        self.settings, self.done = settings, done
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[health]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID = self.progress.add_task(
            settings.dataset, total=settings.iterations, completed=done, health=""
        )
        self.last_line = time.monotonic()
        self.seconds_per_iteration: float | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def tick(self, record: dict[str, Any]) -> None:
        """Shows the newest averages."""
        health = health_line(record)
        self.progress.update(self.task, completed=record["iteration"], health=health)
        now = time.monotonic()
        last = record["iteration"] == self.settings.iterations
        if not self.console.is_terminal and (last or now - self.last_line >= _LOG_SECONDS):
            left = self.settings.iterations - record["iteration"]
            pace = self.seconds_per_iteration
            remaining = f", {duration(pace * left)} left" if pace and left else ""
            self.console.print(
                f"iteration {record['iteration']:,} of {self.settings.iterations:,}{remaining}: {health}",
                soft_wrap=True,
            )
            self.last_line = now

    def forecast(self, seconds_per_iteration: float) -> None:
        """Says how long the run will take, and what is quicker where that is hours."""
        self.seconds_per_iteration = seconds_per_iteration
        left = (self.settings.iterations - self.done - FORECAST_AT) * seconds_per_iteration
        self.console.print(
            f"forecast: {self.settings.iterations - self.done:,} iterations at {seconds_per_iteration:.3g} s each, "
            f"{duration(left)} to go",
            soft_wrap=True,
        )
        if left > _LONG_SECONDS and self.settings.solver != "sinkhorn":
            self.console.print(
                "quicker: --preset quick solves each minibatch by Sinkhorn's algorithm in far fewer iterations, "
                "or --iterations N for less of this",
                soft_wrap=True,
            )


def health_line(record: dict[str, Any]) -> str:
    """The numbers that tell whether a run is healthy, in one line."""
    return (
        f"W {record['dual_value']:.4g} · self {record['self_dual_value']:.4g} · "
        f"information {record['information']:.2f} nats · perplexity {record['plan_perplexity']:.3g} · "
        f"marginal error {record['column_marginal_error']:.2g} · spread {record['spread']:.2f} · "
        f"{record['samples_per_second']:,.0f} samples/s"
    )


def duration(seconds: float) -> str:
    """A duration for people: "45 s", "12 min", "9 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
