"""Telling a person at a terminal, or a log file, how training goes."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from .configuration import Configuration
from .trainer import FORECAST_AT

_LOG_SECONDS = 15.0  # between lines where there is no terminal
_LONG_SECONDS = 3600.0
_PACE_SECONDS = 600.0  # time left is judged by the pace of so long

# What a record of metrics.jsonl says about a run's health: its name there, its name here, and how it is written.
_HEALTH = (
    ("dual_value", "W", "{:.4g}"),
    ("self_dual_value", "self", "{:.4g}"),
    ("information", "information", "{:.2f} nats"),
    ("code_information", "in samples", "{:.2f} nats"),
    ("plan_perplexity", "perplexity", "{:.3g}"),
    ("column_marginal_error", "marginal error", "{:.2g}"),
    ("spread", "spread", "{:.2f}"),
    ("invariance", "invariance", "{:.2f} nats"),
    ("samples_per_second", "samples/s", "{:,.0f}"),
)


def plain_console() -> Console:
    """Standard error for text that may hold anything, such as paths and labels: nothing in it is markup."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


class ProgressReporter:
    """A progress bar above the numbers of health on a terminal, a line now and then elsewhere; on standard error."""

    def __init__(
        self, settings: Configuration, done: int, *, resumed: bool = False, console: Console | None = None
    ) -> None:
        self.settings, self.resumed = settings, resumed
        self.console = console or plain_console()
        self.interactive = self.console.is_terminal and not self.console.is_dumb_terminal
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            speed_estimate_period=_PACE_SECONDS,
            expand=True,
        )
        self.task: TaskID = self.progress.add_task(settings.dataset, total=settings.iterations, completed=done)
        self.health = Text()
        self.live = Live(Group(self.progress, self.health), console=self.console, refresh_per_second=4)
        self.last_line = time.monotonic()
        self.iteration = done
        self.seconds_per_iteration: float | None = None

    def __enter__(self) -> Self:
        if self.interactive:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.interactive:
            self.live.stop()

    def iterated(self, iteration: int) -> None:
        """Moves the bar."""
        self.iteration = iteration
        self.progress.update(self.task, completed=iteration)

    def logged(self, record: dict[str, Any]) -> None:
        """Shows the newest averages."""
        line = health_line(record)
        self.health.plain = line
        now = time.monotonic()
        last = record["iteration"] == self.settings.iterations
        if not self.interactive and (last or now - self.last_line >= _LOG_SECONDS):
            left = (self.settings.iterations - record["iteration"]) * (self.seconds_per_iteration or 0.0)
            remaining = f", {duration(left)} left" if left else ""
            self.say(f"iteration {record['iteration']:,} of {self.settings.iterations:,}{remaining}: {line}")
            self.last_line = now

    def forecast(self, seconds_per_iteration: float) -> None:
        """Says how long the run will take, or its warm-up, and what is quicker where that is hours."""
        warming_up = 0 < self.iteration <= self.settings.warm_up
        end = self.settings.warm_up if warming_up else self.settings.iterations
        iterations = end - self.iteration + FORECAST_AT
        left = (end - self.iteration) * seconds_per_iteration
        kind = "warm-up iterations" if warming_up else "iterations"
        self.say(
            f"forecast: {iterations:,} {kind} at {seconds_per_iteration:.3g} s each, {duration(max(left, 0.0))} to go"
        )
        if warming_up:
            return
        self.seconds_per_iteration = seconds_per_iteration
        if left <= _LONG_SECONDS:
            return
        if self.settings.solver == "sinkhorn" or self.resumed:
            self.say("quicker: --iterations N for less of it; what is trained by then can be exported and resumed")
        else:
            self.say(
                "quicker: --preset quick, which solves each minibatch by Sinkhorn's algorithm in far fewer iterations, "
                "or --iterations N for less of this"
            )

    def say(self, line: str) -> None:
        """Writes a line, above the bar where there is one."""
        self.console.print(line, soft_wrap=True)


def health_line(record: dict[str, Any]) -> str:
    """The numbers that tell whether a run is healthy, in one line."""
    return " · ".join(f"{name} {_written(form, record[key])}" for key, name, form in _HEALTH if key in record)


def duration(seconds: float) -> str:
    """A duration for people: "45 s", "12 min", "9 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _written(form: str, value: float | None) -> str:
    return form.format(value) if value is not None and math.isfinite(value) else "undefined"
