"""What the commands print: one JSON object, or lines and tables for people."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ..results import Samples

_WIDTH_OF_PIPES = 120
# Fewer samples are there before a bar is read.
_LONG = 1000


def prepare_streams() -> None:
    """Lets the standard streams take any text, such as paths that are not UTF-8; one that is closed swallows it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def print_json(result: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(result))


def console() -> "Console":
    """Standard output for tables; not squeezed to 80 columns where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES)


def print_markdown(text: str) -> None:
    """The server's Markdown: laid out on a terminal, and as it was written elsewhere."""
    from ..printable import printable, printable_lines

    if not sys.stdout.isatty():
        click.echo(printable_lines(text))
        return

    from rich.markdown import Markdown
    from rich.segment import Segment, Segments

    output = console()
    # A link's address is not hidden behind its words; what entities such as &#x202e; stand for is seen only here.
    for line in output.render_lines(Markdown(printable_lines(text), hyperlinks=False), pad=False):
        segments = [Segment(printable(segment.text), segment.style) for segment in line]
        output.print(Segments([*segments, Segment.line()]))


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[Iterable["Samples"]], Iterator["Samples"]]]:
    """A progress bar on standard error; nothing where that is no terminal, or where there is little to wait for.

    Yields:
        A function that hands batches on and counts what has been taken.
    """
    if total <= _LONG or not sys.stderr.isatty():
        yield iter
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False), transient=True) as bar:
        task = bar.add_task(description, total=total)

        def counted(batches: Iterable["Samples"]) -> Iterator["Samples"]:
            for batch in batches:
                yield batch
                bar.advance(task, len(batch))

        yield counted
