"""The parametrisations of Q against quadrature over the prior, and against each other."""

import math

import numpy as np
import pytest
import torch
from infosink.training.code_distribution import CodeDistribution, DotProduct, LogDensity, NormalisedDotProduct
from torch import Tensor

CATEGORIES, STYLES = 3, 2
KINDS = [DotProduct, NormalisedDotProduct, LogDensity]


def scores_for(distribution: CodeDistribution, spread: float, count: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.randn(count, distribution.outputs, generator=random, dtype=torch.float64) * spread


def quadrature() -> tuple[Tensor, Tensor]:
    """Every category with a grid of styles, and each point's weight under the prior ζ1."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(80))
    points = torch.cartesian_prod(nodes, nodes)
    weight = torch.cartesian_prod(weights, weights).prod(dim=1) / 4 / CATEGORIES
    codes = [
        torch.cat([category.expand(len(points), CATEGORIES), points], dim=1)
        for category in torch.eye(CATEGORIES, dtype=torch.float64)
    ]
    return torch.cat(codes), weight.repeat(CATEGORIES)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def distribution(request: pytest.FixtureRequest) -> CodeDistribution:
    return request.param(CATEGORIES, STYLES)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_log_partition_is_that_of_exp_q_over_the_prior(distribution, spread):
    scores, (codes, weight) = scores_for(distribution, spread), quadrature()
    expected = (weight[:, None] * distribution.pairwise(codes, scores).exp()).sum(dim=0).log()
    torch.testing.assert_close(distribution.log_partition(scores), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_posterior_holds_the_moments_of_the_density(distribution, spread):
    scores, (codes, weight) = scores_for(distribution, spread), quadrature()
    for row in scores:
        mass = weight * distribution.log_density(codes, row.expand(len(codes), -1)).exp()
        assert mass.sum().item() == pytest.approx(1, rel=1e-7)
        posterior = distribution.posterior(row[None])
        category, style = codes[:, :CATEGORIES], codes[:, CATEGORIES:]
        mean = mass @ style
        torch.testing.assert_close(posterior.category_probability[0], mass @ category, atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(posterior.style_mean[0], mean, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(
            posterior.style_std[0], (mass @ (style - mean).square()).sqrt(), atol=1e-6, rtol=1e-6
        )


def test_q_for_pairs_is_the_log_density_plus_the_log_partition(distribution):
    scores, (codes, _) = scores_for(distribution, 2.0), quadrature()
    pairwise = distribution.pairwise(codes[:50], scores)
    for j, row in enumerate(scores):
        expected = distribution.log_density(codes[:50], row.expand(50, -1)) + distribution.log_partition(scores)[j]
        torch.testing.assert_close(pairwise[:, j], expected, atol=1e-10, rtol=1e-10)


def test_normalising_the_dot_product_leaves_its_posterior(distribution):
    scores = scores_for(DotProduct(CATEGORIES, STYLES), 3.0)
    plain, normalised = DotProduct(CATEGORIES, STYLES), NormalisedDotProduct(CATEGORIES, STYLES)
    for before, after in zip(plain.posterior(scores), normalised.posterior(scores), strict=True):
        assert torch.equal(before, after)


def test_without_evidence_the_dot_products_say_the_prior_and_the_log_density_all_but():
    for kind in KINDS:
        distribution = kind(10, 2)
        scores = torch.zeros(1, distribution.outputs)
        if kind is LogDensity:
            scores[:, -2:] = 100.0  # the widest normal law
        posterior = distribution.posterior(scores)
        assert posterior.category_probability[0].tolist() == pytest.approx([0.1] * 10)
        assert posterior.style_mean[0].tolist() == [0, 0]
        assert posterior.style_std[0].tolist() == pytest.approx([1 / math.sqrt(3)] * 2, abs=1e-3)


def test_the_log_density_is_as_sharp_as_its_least_deviation():
    (codes, weight), scores = quadrature(), torch.zeros(1, CATEGORIES + 2 * STYLES, dtype=torch.float64)
    scores[0, -2:] = torch.tensor([-9.0, 9.0])  # deviations 0.1 and 10
    density = LogDensity(CATEGORIES, STYLES).log_density(codes, scores.expand(len(codes), -1))
    divergence = (weight * density.exp() * density).sum().item()  # of the posterior from the prior
    assert divergence == pytest.approx(math.log(2 / (0.1 * math.sqrt(2 * math.pi * math.e))), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_stay_finite_for_extreme_scores_in_float32(kind):
    distribution = kind(CATEGORIES, STYLES)
    for extreme in (0.0, 1e-30, 60.0, -1e4):
        scores = torch.full((2, distribution.outputs), extreme, requires_grad=True)
        codes = torch.tensor([[1.0, 0, 0, 1.0, -1.0], [0, 0, 1.0, 0.3, 0.0]])
        q, posterior = distribution.pairwise(codes, scores), distribution.posterior(scores)
        (q.sum() + distribution.log_partition(scores).sum() + sum(each.sum() for each in posterior)).backward()
        assert torch.isfinite(scores.grad).all()
