"""What the figures share: a page, images side by side, and the files they become."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..datasets import Dataset
from ..evaluation.record import write_files

_DOTS_PER_INCH = 200
_GUTTER = 2  # pixels between images
_TITLE_SIZE = 9.5
_NOTE_SIZE = 8
_NOTE_COLOUR = "#555555"
_CHARACTERS_PER_INCH = 15  # of notes


class Drawing(NamedTuple):
    """A figure and the numbers behind it."""

    figure: Figure
    numbers: dict[str, Any]  # JSON-able


def page(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose parts find their own places."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def title(axes: Axes, text: str, note: str = "") -> None:
    """A panel's name, and below it in grey what was measured; after draw_images, whose column names it clears."""
    lines = note.count("\n") + 1 if note else 0
    clearance = 4 + (1.5 * _NOTE_SIZE if axes.get_xticklabels() and axes.xaxis.get_ticks_position() == "top" else 0)
    axes.set_title(text + "\n " * lines, fontsize=_TITLE_SIZE, loc="center", linespacing=1.35)
    if note:
        axes.annotate(
            note, (0.5, 1), (0, clearance), "axes fraction", "offset points",
            ha="center", va="bottom", fontsize=_NOTE_SIZE, color=_NOTE_COLOUR,
        )  # fmt: skip


def footer(figure: Figure, *notes: str) -> None:
    """What a figure shows and was drawn from, below it in grey: each note on lines of its own."""
    width = int(_CHARACTERS_PER_INCH * figure.get_figwidth())
    lines = [line for note in notes for line in textwrap.wrap(note, width)]
    figure.supxlabel("\n".join(lines), fontsize=_NOTE_SIZE, color=_NOTE_COLOUR)


def draw_images(
    axes: Axes,
    images: Tensor,
    columns: int,
    dataset: Dataset,
    *,
    column_names: Sequence[str] = (),
    row_names: Sequence[str] = (),
) -> None:
    """Draws grey images, ink on paper, in a grid in reading order.

    Args:
        axes: to draw in.
        images: (rows · columns, 1, height, width) in [-1, 1].
        columns: images in a row.
        dataset: whose native frame the images are cropped to.
        column_names: above the columns; none where empty.
        row_names: left of the rows; none where empty.
    """
    if dataset.frame is not None:
        images = dataset.frame.native(images)
    grid = _tiled(images, columns)
    axes.imshow(grid, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    height, width = images.shape[2] + _GUTTER, images.shape[3] + _GUTTER
    axes.set_xticks([(i + 0.5) * width - _GUTTER / 2 - 0.5 for i in range(len(column_names))], column_names)
    axes.set_yticks([(i + 0.5) * height - _GUTTER / 2 - 0.5 for i in range(len(row_names))], row_names)
    axes.tick_params(length=0, pad=2, labelsize=_NOTE_SIZE, labelcolor=_NOTE_COLOUR, top=True, labeltop=True,
                     bottom=False, labelbottom=False)  # fmt: skip
    axes.spines[:].set_visible(False)


def save(drawing: Drawing, directory: Path, name: str) -> list[Path]:
    """Writes NAME.png and NAME.json together, so that the numbers are those of the picture.

    Raises:
        EvaluationError: one cannot be written; it is then as it was.
    """
    FigureCanvasAgg(drawing.figure)
    picture = BytesIO()
    drawing.figure.savefig(picture, dpi=_DOTS_PER_INCH, format="png")
    text = json.dumps(drawing.numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {f"{name}.png": picture.getvalue(), f"{name}.json": text.encode()}
    write_files(directory, files)
    return [directory / file for file in files]


def _tiled(images: Tensor, columns: int) -> NDArray[np.float32]:
    count, _, height, width = images.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + _GUTTER) - _GUTTER, columns * (width + _GUTTER) - _GUTTER), -1, dtype=np.float32)
    for i, image in enumerate(images[:, 0].cpu().numpy()):
        top, left = (i // columns) * (height + _GUTTER), (i % columns) * (width + _GUTTER)
        grid[top : top + height, left : left + width] = image
    return grid
