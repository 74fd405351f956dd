"""The law of density ∝ exp(b t) on [-1, 1]: the uniform law of a style, tilted exponentially by b.

The closed forms lose their digits to cancellation near b = 0, where a series takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SERIES_BELOW = 0.5


def log_sinhc(b: Tensor) -> Tensor:
    """log(sinh b / b), elementwise."""
    small, large, series = _split(b)
    magnitude = large.abs()
    closed = magnitude + torch.log1p(-torch.exp(-2 * magnitude)) - torch.log(2 * magnitude)
    s = small.square()
    return torch.where(series, s * (1 / 6 + s * (-1 / 180 + s * (1 / 2835 - s / 37800))), closed)


def tilted_mean(b: Tensor) -> Tensor:
    """The mean coth b − 1/b of the density ∝ exp(b t) on [-1, 1], elementwise."""
    small, large, series = _split(b)
    s = small.square()
    return torch.where(
        series,
        small * (1 / 3 + s * (-1 / 45 + s * (2 / 945 + s * (-1 / 4725 + s * (2 / 93555))))),
        1 / torch.tanh(large) - 1 / large,
    )


def tilted_variance(b: Tensor) -> Tensor:
    """The variance 1/b² − csch² b of the density ∝ exp(b t) on [-1, 1], elementwise."""
    small, large, series = _split(b)
    s = small.square()
    decay = torch.exp(-2 * large.abs())
    return torch.where(
        series,
        1 / 3 + s * (-1 / 15 + s * (2 / 189 + s * (-1 / 675 + s * (2 / 10395)))),
        1 / large.square() - 4 * decay / (1 - decay).square(),
    )


def _split(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B where the series holds, b where the closed form does, each harmless elsewhere, and which is which.

    Both branches of torch.where are differentiated, so neither may see an argument it cannot take.
    """
    series = b.abs() < _SERIES_BELOW
    return torch.where(series, b, 0.0), torch.where(series, 1.0, b), series
