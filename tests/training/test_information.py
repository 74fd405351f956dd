"""The bounds on the information, against closed forms."""

import math

import pytest
import torch
from infosink.training.information import information_bounds, partition_penalty
from torch import Tensor


def information_problem() -> tuple[Tensor, Tensor, Tensor]:
    """A plan whose y is uniform, the marginal of z1, and the log density ratio at which Fenchel is tight."""
    draws = torch.Generator().manual_seed(1)
    plan = torch.rand(5, 7, generator=draws, dtype=torch.float64) ** 3
    plan = plan / plan.sum(0) / 7
    prior = plan.sum(1, keepdim=True)
    return plan, prior, (plan / (prior / 7)).log()


def test_the_fenchel_bound_is_tight_at_the_log_density_ratio_and_a_shift_costs_what_it_must():
    plan, prior, ratio = information_problem()
    draws = torch.Generator().manual_seed(2)

    def bound(q: Tensor) -> float:
        return information_bounds(plan, q, (prior * q.exp()).sum(0).log()).fenchel.item()

    information = (plan * ratio).sum().item()
    assert bound(ratio) == pytest.approx(information, rel=1e-12)
    assert information - bound(ratio + 0.5) == pytest.approx(math.exp(0.5) - 1.5, rel=1e-9)  # 0.14872 nats
    assert bound(ratio + torch.randn(5, 7, generator=draws)) < information


def test_each_bound_forgives_what_it_should_and_they_are_ordered():
    plan, prior, ratio = information_problem()
    draws = torch.Generator().manual_seed(3)
    information = (plan * ratio).sum().item()

    def bounds(q: Tensor) -> list[float]:
        return [bound.item() for bound in information_bounds(plan, q, (prior * q.exp()).sum(0).log())]

    fenchel, donsker_varadhan, per_sample = bounds(ratio + 0.5)
    assert fenchel < information - 0.1
    assert [donsker_varadhan, per_sample] == pytest.approx([information] * 2, rel=1e-9)
    of_y = torch.randn(7, generator=draws, dtype=torch.float64)
    fenchel, donsker_varadhan, per_sample = bounds(ratio + of_y)
    assert fenchel < donsker_varadhan < information - 0.1
    assert per_sample == pytest.approx(information, rel=1e-9)
    for _ in range(20):
        q = 2 * torch.randn(5, 7, generator=draws, dtype=torch.float64)
        assert bounds(q) == sorted(bounds(q))
        assert bounds(q)[2] <= information + 1e-12


def test_the_logarithmic_penalty_touches_the_plain_one_from_below():
    for log_partitions in torch.randn(20, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64):
        plain, logarithmic = (partition_penalty(log_partitions, bound) for bound in ("fenchel", "donsker-varadhan"))
        assert logarithmic <= plain
        normalised = log_partitions - torch.logsumexp(log_partitions, 0) + math.log(6)
        assert partition_penalty(normalised, "donsker-varadhan").item() == pytest.approx(1)
        assert partition_penalty(normalised, "fenchel").item() == pytest.approx(1)
    assert torch.isfinite(partition_penalty(torch.tensor([500.0, 0.0]), "donsker-varadhan"))


def test_the_partition_penalty_cannot_overflow_and_keeps_its_gradient():
    log_partitions = torch.tensor([0.3, 500.0], requires_grad=True)
    penalty = partition_penalty(log_partitions, "fenchel")
    penalty.backward()
    assert torch.isfinite(penalty)
    assert (log_partitions.grad > 0).all()
    assert partition_penalty(torch.tensor([0.3]), "fenchel").item() == pytest.approx(math.exp(0.3))
