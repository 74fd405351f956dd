"""The information term: Q(z1, y) = z1 · D_Q(y), its partition function, posteriors and bound.

D_Q(y) = (a, b): a scores the K categories, b the S styles. Under the prior ζ1, category
uniform and styles uniform on [-1, 1], Q is linear in z1, so that

    log Z(y) = log ∫ exp Q(z1, y) dζ1 = logsumexp(a) − log K + Σ_d log(sinh b_d / b_d)

has a closed form, and the normalised exp Q is a posterior over z1: softmax(a) for the
category and, for each style, the exponential tilt of the uniform law by b_d.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_SERIES_BELOW = 0.5  # where the closed forms below lose digits to cancellation
_EXP_GUARD = 20.0


class CodePosterior(NamedTuple):
    """The posterior of z1 given samples."""

    category_probability: Tensor  # (batch, categories)
    style_mean: Tensor  # (batch, styles), in (-1, 1)
    style_std: Tensor  # (batch, styles), in (0, 1/√3]


def log_partition(scores: Tensor, categories: int) -> Tensor:
    """Log Z(y), in nats: (batch, categories + styles) -> (batch,)."""
    a, b = scores[:, :categories], scores[:, categories:]
    return torch.logsumexp(a, dim=1) - math.log(categories) + log_sinhc(b).sum(dim=1)


def code_posterior(scores: Tensor, categories: int) -> CodePosterior:
    """The posterior over z1 that Q's scores stand for: (batch, categories + styles) -> CodePosterior."""
    a, b = scores[:, :categories], scores[:, categories:]
    return CodePosterior(torch.softmax(a, dim=1), tilted_mean(b), tilted_variance(b).sqrt())


def log_posterior_density(informative: Tensor, scores: Tensor, categories: int) -> Tensor:
    """The log density of the posterior at z1, relative to the prior ζ1: Q(z1, y) − log Z(y).

    Args:
        informative: z1, (batch, categories + styles).
        scores: D_Q(y), (batch, categories + styles).
        categories: K.

    Returns:
        (batch,), in nats. Its mean over pairs (z1, G(z)) is a lower bound on the mutual
        information (18) between code and sample.
    """
    return (informative * scores).sum(dim=1) - log_partition(scores, categories)


def partition_penalty(log_partitions: Tensor) -> Tensor:
    """mean_j Z(y_j) of (31), continued linearly above log Z = 20 so that float32 cannot overflow."""
    guarded = log_partitions.clamp(max=_EXP_GUARD)
    return (guarded.exp() * (1 + log_partitions - guarded)).mean()


def fenchel_information(transport_plan: Tensor, q: Tensor, log_partitions: Tensor) -> Tensor:
    """The bound (20) on KL(π♯γ̄ | ζ1⊗ν): Σ P q + 1 − mean_j Z(y_j), in nats.

    Args:
        transport_plan: P, (n, m).
        q: Q(z1_i, y_j), (n, m).
        log_partitions: log Z(y_j), (m,).
    """
    return (transport_plan * q).sum() + 1 - partition_penalty(log_partitions)


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
