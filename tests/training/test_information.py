"""The information term against quadrature and closed forms."""

import math

import numpy as np
import pytest
import torch
from infosink.training.information import (
    code_posterior,
    fenchel_information,
    log_partition,
    log_posterior_density,
    log_sinhc,
    partition_penalty,
    tilted_mean,
    tilted_variance,
)
from infosink.training.transport import sinkhorn
from torch import Tensor

TILTS = [0.0, 1e-6, 0.1, -0.3, 0.4999, 0.5001, -0.7, 2.0, -9.0, 40.0]


def quadrature(b: float) -> tuple[float, float, float]:
    """The log partition function, mean and variance of ½ exp(b t) on [-1, 1], by Gauss-Legendre."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    density = 0.5 * weights * torch.exp(b * nodes - abs(b))
    total = density.sum()
    mean = (density * nodes).sum() / total
    return total.log().item() + abs(b), mean.item(), ((density * (nodes - mean) ** 2).sum() / total).item()


@pytest.mark.parametrize("b", TILTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-6)])
def test_the_style_posterior_is_the_tilted_uniform_law(b, dtype, tolerance):
    tilt = torch.tensor(b, dtype=dtype)
    expected = quadrature(b)
    for function, value in zip((log_sinhc, tilted_mean, tilted_variance), expected, strict=True):
        assert function(tilt).item() == pytest.approx(value, abs=tolerance, rel=tolerance)


def test_the_mean_and_variance_are_the_derivatives_of_the_log_partition():
    b = torch.tensor(TILTS, dtype=torch.float64, requires_grad=True)
    (mean,) = torch.autograd.grad(log_sinhc(b).sum(), b, create_graph=True)
    torch.testing.assert_close(mean, tilted_mean(b), atol=1e-7, rtol=1e-7)
    (variance,) = torch.autograd.grad(mean.sum(), b)
    torch.testing.assert_close(variance, tilted_variance(b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("b", [0.0, 1e-30, 150.0, -1e6])
def test_gradients_stay_finite_in_float32(b):
    tilt = torch.tensor(b, requires_grad=True)
    (log_sinhc(tilt) + tilted_mean(tilt) + tilted_variance(tilt)).backward()
    assert torch.isfinite(tilt.grad).all()


def test_log_partition_is_the_mean_of_exp_q_over_the_prior():
    scores = torch.tensor([[0.3, -1.2, 2.0, 0.8, -0.4]], dtype=torch.float64)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    s, t = torch.meshgrid(grid, grid, indexing="ij")
    style = torch.exp(0.8 * s - 0.4 * t)
    expected = torch.exp(scores[0, :3]).mean() * torch.trapezoid(torch.trapezoid(style, grid), grid) / 4
    assert log_partition(scores, 3).exp().item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_posterior_of_no_evidence_is_the_prior():
    posterior = code_posterior(torch.zeros(1, 12), 10)
    assert posterior.category_probability[0].tolist() == pytest.approx([0.1] * 10)
    assert posterior.style_mean[0].tolist() == [0, 0]
    assert posterior.style_std[0].tolist() == pytest.approx([1 / math.sqrt(3)] * 2)


def test_the_posterior_density_integrates_to_one_over_the_prior():
    scores = torch.tensor([[1.0, -0.5, 0.2, 3.0]], dtype=torch.float64)
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    total = 0.0
    for category in torch.eye(3, dtype=torch.float64):
        codes = torch.cat([category.expand(len(grid), 3), grid[:, None]], dim=1)
        density = log_posterior_density(codes, scores.expand(len(grid), 4), 3).exp()
        total += torch.trapezoid(density, grid).item() / 2 / 3
    assert total == pytest.approx(1.0, rel=1e-6)


def test_the_fenchel_bound_is_tight_at_the_log_density_ratio_and_a_shift_costs_what_it_must():
    draws = torch.Generator().manual_seed(1)
    plan = torch.rand(5, 7, generator=draws, dtype=torch.float64) ** 3
    plan = plan / plan.sum(0) / 7  # y is uniform, z1 is not
    prior = plan.sum(1, keepdim=True)
    ratio = (plan / (prior / 7)).log()

    def bound(q: Tensor) -> float:
        return fenchel_information(plan, q, (prior * q.exp()).sum(0).log()).item()

    information = (plan * ratio).sum().item()
    assert bound(ratio) == pytest.approx(information, rel=1e-12)
    assert information - bound(ratio + 0.5) == pytest.approx(math.exp(0.5) - 1.5, rel=1e-9)  # 0.14872 nats
    assert bound(ratio + torch.randn(5, 7, generator=draws)) < information


def test_the_partition_penalty_cannot_overflow_and_keeps_its_gradient():
    log_partitions = torch.tensor([0.3, 500.0], requires_grad=True)
    penalty = partition_penalty(log_partitions)
    penalty.backward()
    assert torch.isfinite(penalty)
    assert (log_partitions.grad > 0).all()
    assert partition_penalty(torch.tensor([0.3])).item() == pytest.approx(math.exp(0.3))


def informative_plan(cost: Tensor, epsilon: float, lambda_: float, rounds: int = 150) -> Tensor:
    """The fixed point of: plan given Q, then Q the log density ratio of the plan (no noise, z = z1)."""
    q = torch.zeros_like(cost)
    for _ in range(rounds):
        plan = sinkhorn(cost - lambda_ * q, epsilon=epsilon, iterations=30).transport_plan
        q = (plan * plan.numel()).log()
    return plan


def test_two_by_two_information_plan():
    """Diagonal ½ sigmoid(d / (ε − λ))."""
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    plan = informative_plan(cost, epsilon=0.5, lambda_=0.3)
    assert plan[0, 0].item() == pytest.approx(0.5 * 0.99330714907572, rel=1e-9)


def test_without_noise_the_information_plan_is_the_entropic_plan_at_epsilon_minus_lambda():
    cost = torch.rand(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = sinkhorn(cost, epsilon=0.2, iterations=5000).transport_plan
    torch.testing.assert_close(informative_plan(cost, 0.5, 0.3), expected, atol=1e-9, rtol=1e-7)
