"""What Q's outputs stand for: the function Q(z1, y), and the posterior over z1 that it implies.

A network D_Q gives scores for every y; a parametrisation turns them into Q. With ζ1 the prior of
z1, category uniform and styles uniform on [-1, 1], and log Z(y) = log ∫ exp Q(z1, y) dζ1, the
function exp Q / Z(y) is a density over z1 relative to ζ1: the posterior.

    dot-product   Q = z1 · D_Q(y), the paper's choice: softmax(a) over categories and, for each
                  style, the uniform law tilted exponentially by b, where D_Q(y) = (a, b)
    normalised    Q = z1 · D_Q(y) − log Z(y), the same posterior as a density from the start
    log-density   Q = log q(z1|y), equation (22): a categorical law and, for each style, a normal
                  law truncated to [-1, 1], as in InfoGAN but for the truncation
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .configuration import Configuration
from .tilted_uniform import log_sinhc, tilted_mean, tilted_variance

_MAX_LOG_DEVIATION = math.log(10)


class CodePosterior(NamedTuple):
    """The posterior of z1 given samples."""

    category_probability: Tensor  # (batch, categories)
    style_mean: Tensor  # (batch, styles), in (-1, 1)
    style_std: Tensor  # (batch, styles), in (0, 1/√3]


class CodeDistribution(Protocol):
    """A parametrisation of Q.

    The first `categories` scores are always the category's log-probabilities, up to a constant.

    Attributes:
        outputs: how many scores D_Q has to give.
    """

    outputs: int

    def pairwise(self, informative: Tensor, scores: Tensor) -> Tensor:
        """Q(z1_i, y_j), in nats: (n, categories + styles), (m, outputs) -> (n, m)."""

    def log_partition(self, scores: Tensor) -> Tensor:
        """Log Z(y), in nats: (m, outputs) -> (m,)."""

    def log_density(self, informative: Tensor, scores: Tensor) -> Tensor:
        """The log density Q(z1, y) − log Z(y) of the posterior, relative to the prior ζ1.

        Args:
            informative: z1, (batch, categories + styles).
            scores: D_Q(y), (batch, outputs).

        Returns:
            (batch,), in nats. Its mean over pairs (z1, G(z)) is a lower bound on the mutual
            information (18) between code and sample.
        """

    def posterior(self, scores: Tensor) -> CodePosterior:
        """The posterior over z1: (batch, outputs) -> CodePosterior."""


class DotProduct:
    """Q(z1, y) = z1 · D_Q(y): linear in z1, so that its partition function has a closed form.

    log Z(y) = logsumexp(a) − log K + Σ_d log(sinh b_d / b_d)
    """

    def __init__(self, categories: int, styles: int) -> None:
        self.categories, self.outputs = categories, categories + styles

    def pairwise(self, informative: Tensor, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        return informative @ scores.T  # (n, Z1) @ (Z1, m) -> (n, m)

    def log_partition(self, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        return self._log_tilt(scores)

    def log_density(self, informative: Tensor, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        return (informative * scores).sum(dim=1) - self._log_tilt(scores)

    def posterior(self, scores: Tensor) -> CodePosterior:
        """See CodeDistribution; the tilted law's standard deviation is a function of its mean."""
        a, b = scores[:, : self.categories], scores[:, self.categories :]
        return CodePosterior(torch.softmax(a, dim=1), tilted_mean(b), tilted_variance(b).sqrt())

    def _log_tilt(self, scores: Tensor) -> Tensor:
        a, b = scores[:, : self.categories], scores[:, self.categories :]
        return torch.logsumexp(a, dim=1) - math.log(self.categories) + log_sinhc(b).sum(dim=1)


class NormalisedDotProduct(DotProduct):
    """Q(z1, y) = z1 · D_Q(y) − log Z(y): the dot product normalised for each y, so that (20) is (22).

    It costs the plan nothing: an exact potential of the data absorbs log Z(y).
    """

    def pairwise(self, informative: Tensor, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        return informative @ scores.T - self._log_tilt(scores)

    def log_partition(self, scores: Tensor) -> Tensor:
        """See CodeDistribution; 0 for every y."""
        return torch.zeros_like(scores[:, 0])


class LogDensity:
    """Q(z1, y) = log q(z1|y), the parametrisation (22) of Barber and Agakov (2003).

        q(z1|y) = K softmax(a)_k Π_d 2 N(s_d; m_d, σ_d²) / ∫_{-1}^{1} N(t; m_d, σ_d²) dt

    is a density relative to ζ1 because of the factors K and 2 and of the truncation to [-1, 1].
    The scores are a, then the means before a tanh, then the log deviations before a tanh that
    keeps σ within 0.1 and 10, where the moments below keep their digits in float32.
    """

    def __init__(self, categories: int, styles: int) -> None:
        self.categories, self.styles, self.outputs = categories, styles, categories + 2 * styles

    def pairwise(self, informative: Tensor, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        log_probability, mean, deviation = self._laws(scores)
        category, style = informative[:, : self.categories], informative[:, self.categories :]
        precision = deviation.pow(-2)
        # Quadratic in the style: one product with the statistics (category, s, s²).
        statistics = torch.cat([category, style, style.square()], dim=1)
        coefficients = torch.cat([log_probability, mean * precision, -0.5 * precision], dim=1)
        constant = (-0.5 * mean.square() * precision - _log_mass(mean, deviation)).sum(dim=1)
        return statistics @ coefficients.T + constant

    def log_partition(self, scores: Tensor) -> Tensor:
        """See CodeDistribution; 0 for every y."""
        return torch.zeros_like(scores[:, 0])

    def log_density(self, informative: Tensor, scores: Tensor) -> Tensor:
        """See CodeDistribution."""
        log_probability, mean, deviation = self._laws(scores)
        category, style = informative[:, : self.categories], informative[:, self.categories :]
        of_style = -0.5 * ((style - mean) / deviation).square() - _log_mass(mean, deviation)
        return (category * log_probability).sum(dim=1) + of_style.sum(dim=1)

    def posterior(self, scores: Tensor) -> CodePosterior:
        """See CodeDistribution; the moments of a truncated normal law."""
        log_probability, mean, deviation = self._laws(scores)
        low, high = (-1 - mean) / deviation, (1 - mean) / deviation
        mass = _normal_mass(low, high)
        shift = (_normal_density(low) - _normal_density(high)) / mass
        shrinkage = (low * _normal_density(low) - high * _normal_density(high)) / mass
        variance = deviation.square() * (1 + shrinkage - shift.square())
        probability = log_probability.exp() / self.categories
        return CodePosterior(probability, mean + deviation * shift, variance.clamp_min(0).sqrt())

    def _laws(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log K softmax(a), m and σ."""
        a = scores[:, : self.categories]
        raw_mean, raw_deviation = scores[:, self.categories :].chunk(2, dim=1)
        return (
            torch.log_softmax(a, dim=1) + math.log(self.categories),
            torch.tanh(raw_mean),
            torch.exp(_MAX_LOG_DEVIATION * torch.tanh(raw_deviation)),
        )


def make_code_distribution(settings: Configuration) -> CodeDistribution:
    """The parametrisation that the settings name."""
    categories, styles = settings.categories, settings.styles
    if settings.parametrisation == "log-density":
        return LogDensity(categories, styles)
    return (NormalisedDotProduct if settings.parametrisation == "normalised" else DotProduct)(categories, styles)


def _normal_density(t: Tensor) -> Tensor:
    return torch.exp(-0.5 * t.square()) / math.sqrt(2 * math.pi)


def _normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """The standard normal law's mass between low ≤ 0 and high ≥ 0: both terms add, so nothing cancels."""
    return 0.5 * (torch.erf(high / math.sqrt(2)) - torch.erf(low / math.sqrt(2)))


def _log_mass(mean: Tensor, deviation: Tensor) -> Tensor:
    """Log ½ ∫_{-1}^{1} exp(−½ ((t − m) / σ)²) dt, for m in [-1, 1]."""
    mass = _normal_mass((-1 - mean) / deviation, (1 - mean) / deviation)
    return torch.log(deviation * mass) + 0.5 * math.log(2 * math.pi) - math.log(2)
