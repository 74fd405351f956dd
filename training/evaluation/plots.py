"""The pictures of an evaluation, as PNG files in memory."""

from __future__ import annotations

import colorsys
import io
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

_DPI = 130
_GUTTER = 2
_SCALE = 2
_LONGEST_TITLE = 24
_TITLE = dict(fontsize=11, loc="left", pad=8)
_INK = "#333333"


def image_rows(images: Tensor, titles: list[str], title: str, values: Tensor | None = None) -> bytes:
    """Rows of images with a title each.

    Args:
        images: (rows, columns, channels, height, width) in [-1, 1].
        titles: of the rows.
        title: of the picture.
        values: of what is swept along the columns, (columns,); None where they are independent draws.
    """
    rows, columns, channels, height, width = images.shape
    canvas = torch.ones(channels, rows * (height + _GUTTER) - _GUTTER, columns * (width + _GUTTER) - _GUTTER)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + _GUTTER), column * (width + _GUTTER)
            canvas[:, top : top + height, left : left + width] = (images[row, column].clamp(-1, 1) + 1) / 2
    shown = [_shortened(each) for each in titles]
    # Axes that lie on whole pixels, at a whole multiple of the images': no pixel is wider than another.
    across, up = _SCALE * canvas.shape[2], _SCALE * canvas.shape[1]
    left, right, above, below = 30 + 10 * max(map(len, shown)), 16, 44, 16 if values is None else 36
    full_width, full_height = left + across + right, above + up + below
    figure = Figure(figsize=(full_width / _DPI, full_height / _DPI))
    axes = figure.add_axes((left / full_width, below / full_height, across / full_width, up / full_height))
    axes.imshow(canvas.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
    axes.set_title(title, **_TITLE)  # type: ignore[arg-type]
    axes.set_yticks([row * (height + _GUTTER) + height / 2 for row in range(rows)], shown)
    if values is None:
        axes.set_xticks([])
    else:
        written = [f"{value:g}".replace("-", "−") for value in values.tolist()]
        axes.set_xticks([column * (width + _GUTTER) + width / 2 for column in range(columns)], written)
    _bare(axes)
    return _png(figure)


def confusion_matrix(counts: Tensor, labels: list[str]) -> bytes:
    """Labels asked for (rows) against labels seen (columns), in percent of each row.

    Args:
        counts: (labels, labels) int64.
        labels: their names.
    """
    share = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    side = 1.6 + 0.42 * len(labels)
    figure = Figure(figsize=(side, side + 0.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_title("Asked for against seen, % of each row", **_TITLE)  # type: ignore[arg-type]
    axes.set_xlabel("label seen by the classifier", color=_INK)
    axes.set_ylabel("label asked for", color=_INK)
    shown = [_shortened(label) for label in labels]
    axes.set_yticks(range(len(labels)), shown)
    axes.set_xticks(range(len(labels)), shown, rotation=0 if max(map(len, labels)) <= 3 else 90)
    for row in range(len(labels)):
        for column in range(len(labels)):
            percent = 100 * float(share[row, column])
            if percent >= 0.05:
                colour = "white" if percent > 55 else _INK
                text = f"{percent:.0f}" if percent >= 0.95 else f"{percent:.1f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    _bare(axes)
    return _png(figure)


def correlation_heatmap(panels: dict[str, list[dict[str, Any]]]) -> bytes:
    """Partial rank correlations of style codes (rows) with morphometrics (columns), one panel a model.

    Args:
        panels: the "styles" of evaluation.json, by the panel's title.
    """
    rows = max(len(styles) for styles in panels.values())
    figure = Figure(figsize=(0.9 + 3.1 * len(panels), 1.7 + 0.5 * rows), layout="constrained")
    figure.suptitle("Style codes against the shape of strokes", fontsize=11, x=0.02, ha="left")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, styles) in zip(all_axes, panels.items(), strict=True):
        names = list(styles[0]["partial_correlation"])
        values = [[style["partial_correlation"][name] for name in names] for style in styles]
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.set_title(title, fontsize=10, color=_INK)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(styles)), [style["name"] for style in styles])
        for row, of_style in enumerate(values):
            for column, value in enumerate(of_style):
                colour = "white" if abs(value) > 0.6 else _INK
                written = f"{value:.2f}".replace("-", "−")
                axes.text(column, row, written, ha="center", va="center", fontsize=9, color=colour)
        _bare(axes)
    figure.colorbar(shown, ax=all_axes, label="partial rank correlation", ticks=[-1, 0, 1])
    return _png(figure)


def scatter(points: Tensor, categories: Tensor, real: Tensor, centres: Tensor) -> bytes:
    """Generated points, coloured by category, over real ones in grey, with the components' centres.

    Args:
        points: (count, 2).
        categories: the category each was generated with, (count,) int64.
        real: (any count, 2).
        centres: (components, 2).
    """
    # Steps of the golden angle keep the colours of neighbouring categories apart.
    number = max(1, int(categories.max()) + 1)
    palette = [colorsys.hls_to_rgb(k * 137.508 % 360 / 360, 0.40 + 0.12 * (k % 2), 0.8) for k in range(number)]
    figure = Figure(figsize=(6.2, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(real[:, 0].numpy(), real[:, 1].numpy(), s=9, c="#d4d4d4", linewidths=0)
    colours = [palette[category] for category in categories.tolist()]
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=5, c=colours, linewidths=0)
    axes.scatter(centres[:, 0].numpy(), centres[:, 1].numpy(), s=34, c="black", marker="+", linewidths=0.8)
    reach = 1.2 * float(real.abs().max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    outside = int((points.abs() > reach).any(dim=1).sum())
    title = f"{len(points):,} samples" + (f", {outside:,} of them outside of the frame" if outside else "")
    axes.set_title(title, **_TITLE)  # type: ignore[arg-type]
    axes.tick_params(colors=_INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _shortened(title: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in title).replace("$", "\\$")
    return printable if len(printable) <= _LONGEST_TITLE else printable[: _LONGEST_TITLE - 1] + "…"


def _bare(axes: Axes) -> None:
    """Takes away the frame and the tick marks: the tiles are frame enough."""
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes.spines[:].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
