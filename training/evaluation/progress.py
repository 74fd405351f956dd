"""Telling a person how an evaluation goes, and in short what came of it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..progress import plain_console
from .measures import DIRECTION_SIGNS
from .record import Evaluation
from .report import columns, headline_measures, written
from .seeds import Spread, row


class StageReporter:
    """A bar with the stage at work on a terminal, a line for each stage elsewhere; on standard error."""

    def __init__(self) -> None:
        self.console = plain_console()
        self.interactive = self.console.is_terminal and not self.console.is_dumb_terminal
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            expand=True,
        )
        self.task = self.progress.add_task("", total=1.0)
        self.said = ""

    def __enter__(self) -> Self:
        if self.interactive:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.interactive:
            self.progress.stop()

    def __call__(self, text: str, share: float) -> None:
        """Shows what is being done, and which share of it is done."""
        self.progress.update(self.task, description=text, completed=share)
        if not self.interactive and text != self.said:
            self.console.print(f"{text} ...", soft_wrap=True)
        self.said = text


def print_headline(evaluation: Evaluation) -> None:
    """The headline numbers as a table, on standard output."""
    shown = columns(evaluation)
    summary = Table("", "", *shown)
    for measure in headline_measures(evaluation):
        numbers = (written(measure, values) for values in shown.values())
        summary.add_row(measure.title, DIRECTION_SIGNS[measure.better], *numbers)
    _console().print(summary)


def print_spreads(spreads: list[Spread]) -> None:
    """Measures over seeds as a table, on standard output."""
    summary = Table("", "", "mean", "standard deviation", "minimum", "maximum", "runs")
    for spread in spreads:
        summary.add_row(*(Text(text) for text in row(spread)))
    _console().print(summary)


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)
