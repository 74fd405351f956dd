"""What the commands print: one JSON object, or lines and tables for people."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_PIPES = 120


def print_json(result: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(result))


def console() -> "Console":
    """Standard output for tables; not squeezed to 80 columns where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES)


def printable(text: str) -> str:
    """The server's words without control characters, which could steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, or nothing where that is no terminal.

    Yields:
        A function that takes how many more of `total` are done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    error_console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda more: bar.advance(task, more)
