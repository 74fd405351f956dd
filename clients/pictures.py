"""Samples as pictures to look at: grids of images, and scatters of points."""

import colorsys
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GUTTER = 2
_SMALLEST_CELL = 48
_CANVAS = 255
_TEXT_MARGIN = 6
_SCATTER_SIZE = 800
_SCATTER_MARGIN = 24
_DOT_RADIUS = 2


def near_square(count: int) -> int:
    """The number of columns that makes a grid of `count` cells as square as can be."""
    return math.ceil(math.sqrt(count))


def magnification(height: int, width: int) -> int:
    """The whole number that small images are enlarged by so that people can look at them."""
    return max(1, math.ceil(_SMALLEST_CELL / max(height, width)))


def grid_size(count: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """The height and width in pixels of a grid of `count` images of height x width, without titles."""
    scale, rows = magnification(height, width), math.ceil(count / columns)
    return rows * (scale * height + GUTTER) + GUTTER, columns * (scale * width + GUTTER) + GUTTER


def image_from_array(array: NDArray[np.uint8]) -> Image.Image:
    """uint8 [height, width, channels] with 1 or 3 channels -> a grey or colour image."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def grid(
    images: NDArray[np.uint8],
    *,
    columns: int,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
) -> Image.Image:
    """The images in rows, each enlarged by `magnification` without smoothing, on white.

    Args:
        images: uint8 [n, height, width, channels] with 1 or 3 channels.
        columns: Images in one row.
        row_titles: Written left of the rows; none, or one for each.
        column_titles: Written above the columns; none, or one for each.
    """
    count, height, width, channels = images.shape
    scale = magnification(height, width)
    font = ImageFont.load_default()
    left = max((math.ceil(font.getlength(title)) + _TEXT_MARGIN for title in row_titles), default=0)
    top = max((math.ceil(font.getbbox(title)[3]) + _TEXT_MARGIN for title in column_titles), default=0)
    grid_height, grid_width = grid_size(count, columns, height, width)
    canvas = np.full((top + grid_height, left + grid_width, channels), _CANVAS, np.uint8)
    for index, image in enumerate(images):
        y = top + GUTTER + index // columns * (scale * height + GUTTER)
        x = left + GUTTER + index % columns * (scale * width + GUTTER)
        canvas[y : y + scale * height, x : x + scale * width] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    picture = image_from_array(canvas)
    pen = ImageDraw.Draw(picture)
    for row, title in enumerate(row_titles):
        y = top + GUTTER + row * (scale * height + GUTTER) + scale * height / 2
        pen.text((left - _TEXT_MARGIN / 2, y), title, fill=_ink(channels), font=font, anchor="rm")
    for column, title in enumerate(column_titles):
        x = left + GUTTER + column * (scale * width + GUTTER) + scale * width / 2
        pen.text((x, top - _TEXT_MARGIN / 2), title, fill=_ink(channels), font=font, anchor="mb")
    return picture


def scatter(points: NDArray[np.float32], categories: NDArray[np.int64]) -> Image.Image:
    """The points, one colour for each category, with the same scale on both axes and the extremes written beside.

    Args:
        points: float32 [n, 2].
        categories: int64 [n].
    """
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    extent = max(float((high - low).max()), 1e-6)
    scale = (_SCATTER_SIZE - 2 * _SCATTER_MARGIN) / extent
    middle = (low + high) / 2
    picture = Image.new("RGB", (_SCATTER_SIZE, _SCATTER_SIZE), (_CANVAS,) * 3)
    pen = ImageDraw.Draw(picture)
    for point, category in zip(points.astype(float), categories.tolist(), strict=True):
        x = _SCATTER_SIZE / 2 + (point[0] - middle[0]) * scale
        y = _SCATTER_SIZE / 2 - (point[1] - middle[1]) * scale
        box = (x - _DOT_RADIUS, y - _DOT_RADIUS, x + _DOT_RADIUS, y + _DOT_RADIUS)
        pen.ellipse(box, fill=category_colour(category))
    text = f"x {low[0]:.3g} to {high[0]:.3g}, y {low[1]:.3g} to {high[1]:.3g}"
    pen.text((_SCATTER_MARGIN / 2, _SCATTER_SIZE - _SCATTER_MARGIN / 4), text, fill=_ink(3), anchor="lb")
    return picture


def category_colour(category: int) -> tuple[int, int, int]:
    """Neighbouring categories are a golden section of the colour circle apart."""
    red, green, blue = colorsys.hsv_to_rgb(category * 0.6180339887 % 1, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink(channels: int) -> Any:
    return 0 if channels == 1 else (0, 0, 0)
