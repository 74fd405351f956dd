"""Distances between sets of samples, on cases whose answer is known."""

import math

import pytest
import torch
from infosink.training.evaluation.quality import frechet_distance, manifold_coverage, mean_pairwise_cost
from infosink.training.ground_cost import l1, squared_l2


def normal(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    """Samples whose mean is 0 and whose covariance is the identity, exactly."""
    samples = normal(count, dimension, seed)
    samples = samples - samples.mean(dim=0)
    return samples @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(samples.T))).T


def test_frechet_distance_of_a_set_to_itself_and_to_its_translation():
    samples, shift = normal(300, 20), normal(1, 20, seed=1)
    assert frechet_distance(samples, samples) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(samples, samples + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_frechet_distance_of_gaussians_along_the_same_axes():
    """For commuting covariances d² = ‖μ − μ'‖² + Σ (σ − σ')²."""
    sigma, other = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([3.0, 2.0, 1.5, 1.0]).double()
    mean = torch.tensor([0.0, 1.0, -2.0, 0.5]).double()
    expected = float(mean.square().sum() + (sigma - other).square().sum())
    a, b = whitened(200, 4) * sigma, whitened(150, 4, seed=1) * other + mean
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_gaussians_along_different_axes():
    """In the plane tr (ΣΣ')^½ = √(tr ΣΣ' + 2 √(det Σ det Σ')), by Cayley and Hamilton."""
    a = whitened(100, 2) @ torch.tensor([[2.0, 0.3], [0.0, 0.5]]).double()
    b = whitened(100, 2, seed=1) @ torch.tensor([[0.7, -0.9], [0.4, 1.1]]).double()
    one, two = torch.cov(a.T), torch.cov(b.T)
    cross = math.sqrt((one @ two).trace() + 2 * math.sqrt(one.det() * two.det()))
    assert frechet_distance(a, b) == pytest.approx(float(one.trace() + two.trace()) - 2 * cross, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_distance_where_there_are_fewer_samples_than_features():
    samples = normal(10, 64)
    assert frechet_distance(samples, samples + 2) == pytest.approx(64 * 4, rel=1e-9)


def test_sets_that_are_equal_cover_each_other():
    samples = normal(700, 8).float()
    assert manifold_coverage(samples, samples.flip(0)) == (1, 1, 1)


def test_sets_that_are_far_apart_do_not():
    assert manifold_coverage(normal(600, 8), normal(550, 8, seed=1) + 100) == (0, 0, 0)


def test_a_collapsed_generator_is_precise_and_covers_little():
    real = normal(1000, 8)
    found = manifold_coverage(real, real[:1] + 0.05 + 1e-6 * normal(600, 8, seed=1))
    assert (found.precision, found.recall) == (1, 0)
    assert 1 / 1000 <= found.coverage < 0.1


def test_a_generator_of_half_the_modes_recalls_half():
    real = torch.cat([normal(300, 4), normal(300, 4, seed=1) + 100])
    assert manifold_coverage(real, real[:300]) == (1, 0.5, 0.5)
    remote = (real / 1000 + 1000).float()  # where the squares of float32 would round the distances away
    assert manifold_coverage(remote, remote[:300]) == (1, 0.5, 0.5)


def test_an_outlier_adds_to_recall_and_not_to_coverage():
    real = normal(600, 4)
    generated = torch.cat([normal(10, 4, seed=1) * 50, real[:300] + 1000])
    found = manifold_coverage(real, generated)
    assert found.recall == 1
    assert found.coverage < 0.05


def test_equal_distributions_have_the_coverage_that_naeem_et_al_derive():
    found = manifold_coverage(normal(3000, 6), normal(3000, 6, seed=1), neighbours=3)
    assert found.coverage == pytest.approx(1 - 2**-3, abs=0.02)


def test_the_ball_of_a_sample_reaches_to_the_neighbour_asked_for():
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    generated = torch.tensor([[9.0], [100.0], [200.0]])
    assert manifold_coverage(real, generated, neighbours=1) == (1 / 3, 1, 1 / 4)  # only 7 reaches 4 far
    assert manifold_coverage(real, generated - 3.5, neighbours=1).coverage == 1 / 4
    assert manifold_coverage(real, generated - 3.5, neighbours=2).coverage == 2 / 4  # 3 reaches 3 far, 7 reaches 6


def test_mean_pairwise_cost_of_three_points():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])
    assert mean_pairwise_cost(points, l1) == pytest.approx((7 + 4 + 3) / 3)
    assert mean_pairwise_cost(points, squared_l2) == pytest.approx((25 + 16 + 9) / 3)


def test_mean_pairwise_cost_counts_every_pair_once():
    points = torch.arange(1201.0)[:, None]  # E |i − j| over distinct i, j of 0..n−1 is (n + 1) / 3
    assert mean_pairwise_cost(points, l1) == pytest.approx(1202 / 3)
    assert mean_pairwise_cost(points, lambda x, y: torch.ones(len(x), len(y))) == 1  # and no sample with itself


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="1 samples have no covariance"):
        frechet_distance(normal(1, 3), normal(9, 3))
    with pytest.raises(ValueError, match="5 samples do not have 5 neighbours"):
        manifold_coverage(normal(9, 3), normal(5, 3))
    with pytest.raises(ValueError, match="1 samples have no pair"):
        mean_pairwise_cost(normal(1, 3), l1)
