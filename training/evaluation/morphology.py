"""The shape of a stroke drawing in four numbers, from the moments of its ink."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NO_EXTENT = 1e-9  # square pixels: a variance below it is rounding
_GROUND = 0.5  # of the pixels: more than this share is dark where strokes lie on a dark ground


class Morphometrics(NamedTuple):
    """Measures of each image, (count,) float64; see morphometrics."""

    slant: Tensor  # columns per row, positive where it leans to the right, like "/"
    width: Tensor  # pixels, the slant removed
    height: Tensor  # pixels
    ink: Tensor  # the share of full ink, in [0, 1]


def morphometrics(images: Tensor) -> Morphometrics:
    """Measures images of bright strokes on a dark ground.

    With the ink w = (x + 1) / 2 of a pixel, averaged over channels, column u and row v counted
    to the right and downwards, and μ_pq the central moments Σ w (u − ū)^p (v − v̄)^q / Σ w:

        slant    −μ11 / μ02             a horizontal shear by s, u ← u − s v, adds s
        width    √(μ20 − μ11² / μ02)    the deviation of columns once the slant is sheared away
        height   √μ02                   the deviation of rows
        ink      mean w                 of the whole frame; heavier strokes have more

    Slant is that of the usual deskewing of digits. Width is taken without it because the plain
    deviation √μ20 holds μ02 slant²: on the ones of MNIST that follows slant with a rank
    correlation of 0.8, and a style that only slants would seem to widen. Where an image shows
    no ink, or lies in one row, what has no meaning is 0: slant, and for no ink all four.

    Args:
        images: (count, channels, height, width), in [-1, 1].

    Raises:
        ValueError: these are no images.
    """
    if images.ndim != 4:
        raise ValueError(f"samples of shape {tuple(images.shape)} are no images (count, channels, height, width)")
    ink = (images.double().mean(dim=1) + 1) / 2
    mass = ink.sum(dim=(1, 2))
    weight = ink / mass.where(mass > 0, torch.ones_like(mass))[:, None, None]
    row, column = (torch.arange(size, dtype=torch.float64, device=images.device) for size in ink.shape[1:])
    by_row, by_column = weight.sum(dim=2), weight.sum(dim=1)
    v = row - (by_row @ row)[:, None]
    u = column - (by_column @ column)[:, None]
    row_variance = (by_row * v.square()).sum(dim=1)
    column_variance = (by_column * u.square()).sum(dim=1)
    covariance = torch.einsum("nvu,nv,nu->n", weight, v, u)
    tall = row_variance > _NO_EXTENT
    slant = torch.where(tall, -covariance / row_variance.where(tall, torch.ones_like(mass)), 0.0)
    return Morphometrics(
        slant=slant,
        width=(column_variance - slant.square() * row_variance).clamp_min(0).sqrt(),
        height=row_variance.sqrt(),
        ink=ink.mean(dim=(1, 2)),
    )


def why_no_strokes(images: Tensor) -> str | None:
    """Why images are no bright strokes on a dark ground; None where they may be.

    Strokes are grey, all channels alike, and leave more than half of all pixels below mid-grey.
    The moments of anything else would still be numbers, and mislead: dark strokes on a white ground
    seem to lean the other way, and in a photograph "ink" is brightness.

    Args:
        images: real ones, (count, channels, height, width), in [-1, 1].
    """
    if not images.eq(images[:, :1]).all():
        return "they are coloured"
    dark = float((images < 0).double().mean())
    return None if dark > _GROUND else f"only {dark:.0%} of their pixels are darker than mid-grey"
