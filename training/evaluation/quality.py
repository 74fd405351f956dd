"""How close generated samples are to real ones, and how much of the real ones' variety they have."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ground_cost import GroundCost

_BLOCK = 500  # rows of a matrix of all pairs that are in memory at a time


class ManifoldCoverage(NamedTuple):
    """How two sets of samples cover each other, each a share in [0, 1]."""

    precision: float  # of the generated samples, those that lie in the ball of a real one
    recall: float  # of the real samples, those that lie in the ball of a generated one
    coverage: float  # of the real samples, those whose ball holds a generated one


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared 2-Wasserstein distance of Gaussians fitted to two sets of features (Dowson and Landau 1982).

        d² = ‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ Σ')^½)

    This is the FID of Heusel et al. (2017), for features of any kind. Means and unbiased covariances
    are taken in float64. The estimate is biased upwards, the more so the fewer the samples: compare only numbers
    from equally many.

    Args:
        a: (n, d), n ≥ 2.
        b: (m, d), m ≥ 2.

    Raises:
        ValueError: either has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{min(len(a), len(b))} samples have no covariance: bring at least 2")
    a, b = a.double(), b.double()
    covariance_a, covariance_b = (torch.cov(each.T).reshape(each.shape[1], each.shape[1]) for each in (a, b))
    # tr (Σ Σ')^½ is the sum of the singular values of Σ^½ Σ'^½, which exist for singular Σ too.
    cross = torch.linalg.svdvals(_square_root(covariance_a) @ _square_root(covariance_b)).sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(0.0, float(shift + covariance_a.trace() + covariance_b.trace() - 2 * cross))


def manifold_coverage(real: Tensor, generated: Tensor, neighbours: int = 5) -> ManifoldCoverage:
    """Precision and recall (Kynkäänniemi et al. 2019), and coverage (Naeem et al. 2020).

    The ball of a sample reaches to its k-th nearest neighbour in its own set, itself not counted;
    distances are Euclidean. Recall lets one generated outlier claim many real samples, coverage does not.
    Real against real does not reach 1: coverage is then 1 − 2^−k for many samples.

    Args:
        real: features (n, d).
        generated: features (m, d).
        neighbours: k, at least 1.

    Raises:
        ValueError: either has no more than k rows.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(
            f"{min(len(real), len(generated))} samples do not have {neighbours} neighbours each: "
            f"bring more than {neighbours}"
        )
    real, generated = real.double(), generated.double()  # rounding must not part a sample from its like
    real_radius, generated_radius = _radii(real, neighbours), _radii(generated, neighbours)
    precise = torch.zeros(len(generated), dtype=torch.bool, device=real.device)
    recalled, covered = [], []
    for block, radius in zip(torch.split(real, _BLOCK), torch.split(real_radius, _BLOCK), strict=True):
        distance = torch.cdist(block, generated)  # (block, m)
        inside = distance <= radius[:, None]
        precise |= inside.any(dim=0)
        covered.append(inside.any(dim=1))
        recalled.append((distance <= generated_radius).any(dim=1))
    return ManifoldCoverage(
        precision=float(precise.double().mean()),
        recall=float(torch.cat(recalled).double().mean()),
        coverage=float(torch.cat(covered).double().mean()),
    )


def mean_pairwise_cost(samples: Tensor, ground_cost: GroundCost) -> float:
    """How varied samples are: the mean cost between two of them.

        2 / (n (n − 1)) Σ_{i<j} c(x_i, x_j)

    Args:
        samples: (n, ...), n ≥ 2.
        ground_cost: c, symmetric.

    Returns:
        The mean, in units of the cost.

    Raises:
        ValueError: there are fewer than two samples.
    """
    count = len(samples)
    if count < 2:
        raise ValueError(f"{count} samples have no pair: bring at least 2")
    total = 0.0
    for start in range(0, count, _BLOCK):
        cost = ground_cost(samples[start : start + _BLOCK], samples[start:])
        total += float(cost.triu(diagonal=1).sum(dtype=torch.float64))
    return total / (count * (count - 1) / 2)


def _square_root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    root: Tensor = (eigenvectors * eigenvalues.clamp_min(0).sqrt()) @ eigenvectors.T
    return root


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """The distance of each row to its k-th nearest other row, (n,)."""
    blocks = torch.split(features, _BLOCK)
    return torch.cat([torch.cdist(block, features).kthvalue(neighbours + 1, dim=1).values for block in blocks])
