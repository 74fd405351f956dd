"""The information plan against closed forms and against the problem it solves."""

import itertools
import math

import pytest
import torch
from infosink.training.information_plan import InformationPlan, information_plan, mutual_information
from infosink.training.transport import sinkhorn
from torch import Tensor

ASYMMETRIC_WEIGHTS = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)


def random_cost(n1: int, n2: int, m: int) -> Tensor:
    return torch.rand(n1, n2, m, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def objective(cost: Tensor, plan: Tensor, weights: Tensor, epsilon: float, lambda_: float) -> float:
    """F(γ), written out from its definition."""
    n1, n2, _ = cost.shape
    entropy = torch.special.xlogy(plan, plan * n1 * n2 / weights).sum()
    joint = plan.sum(1)
    information = torch.special.xlogy(joint, joint * n1 / weights).sum()
    return ((plan * cost).sum() + epsilon * entropy - lambda_ * information).item()


def test_two_by_two():
    plan = information_plan(
        torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]).double(), epsilon=0.5, lambda_=0.3, tolerance=1e-15
    )
    assert plan.transport_plan[0, 0, 0].item() == pytest.approx(0.5 * 0.99330714907572, rel=1e-7)


def test_without_noise_it_is_the_entropic_plan_at_epsilon_minus_lambda():
    cost = random_cost(6, 1, 5)
    found = information_plan(
        cost, epsilon=0.5, lambda_=0.3, column_log_weights=ASYMMETRIC_WEIGHTS.log(), tolerance=1e-15
    )
    expected = sinkhorn(cost[:, 0], epsilon=0.2, iterations=5000, column_log_weights=ASYMMETRIC_WEIGHTS.log())
    torch.testing.assert_close(found.transport_plan[:, 0], expected.transport_plan, atol=1e-7, rtol=0)


def test_without_lambda_it_is_the_entropic_plan():
    cost = random_cost(3, 4, 5)
    expected = sinkhorn(cost.flatten(0, 1), epsilon=0.1, iterations=2000).transport_plan
    found = information_plan(cost, epsilon=0.1, lambda_=0.0)
    torch.testing.assert_close(found.transport_plan.flatten(0, 1), expected, atol=1e-9, rtol=0)
    assert len(found.objective) == 2  # the second round confirms the first


@pytest.mark.parametrize("lambda_", [0.05, 0.1, 0.5])
def test_the_objective_is_the_problems_and_falls_and_the_marginals_hold(lambda_):
    cost = random_cost(6, 5, 5)
    told: list[tuple[int, float]] = []
    found = information_plan(
        cost,
        epsilon=0.1,
        lambda_=lambda_,
        column_log_weights=ASYMMETRIC_WEIGHTS.log(),
        progress=lambda count, value: told.append((count, value)),
    )
    plan, values = found.transport_plan, found.objective
    assert len(values) > 3
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] == pytest.approx(objective(cost, plan, ASYMMETRIC_WEIGHTS, 0.1, lambda_), abs=1e-8)
    assert told == list(enumerate(values, start=1))
    assert found.marginal_error < 1e-8
    torch.testing.assert_close(plan.sum(2), torch.full((6, 5), 1 / 30, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(plan.sum((0, 1)), ASYMMETRIC_WEIGHTS, atol=1e-8, rtol=0)


def test_a_convex_problem_is_solved_to_optimality():
    """No step from the plan along a direction that keeps the marginals lowers the objective."""
    cost, epsilon, lambda_ = random_cost(4, 3, 5), 0.2, 0.15
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    plan = information_plan(cost, epsilon=epsilon, lambda_=lambda_, tolerance=1e-15).transport_plan
    best = objective(cost, plan, weights, epsilon, lambda_)
    random = torch.Generator().manual_seed(8)
    for _ in range(50):
        direction = torch.randn(12, 5, generator=random, dtype=torch.float64)
        direction -= direction.mean(0)
        direction -= direction.mean(1, keepdim=True)
        step = 1e-2 * plan.min() * direction.view_as(plan) / direction.abs().max()
        assert objective(cost, plan + step, weights, epsilon, lambda_) >= best - 1e-12


def test_only_the_informative_axis_is_made_informative():
    axis = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
    cost = (axis[:, None, None] - axis) ** 2 + (axis[None, :, None] - axis) ** 2

    def information(result: InformationPlan) -> tuple[float, float]:
        plan = result.transport_plan
        return mutual_information(plan.sum(1)).item(), mutual_information(plan.sum(0)).item()

    plain = information(information_plan(cost, epsilon=0.1, lambda_=0.0))
    informed = information(information_plan(cost, epsilon=0.1, lambda_=0.2))
    assert plain[0] == pytest.approx(plain[1])
    assert informed[0] > plain[0] + 0.8
    assert abs(informed[1] - plain[1]) < 0.5


def test_mutual_information_of_known_joints():
    assert mutual_information(torch.eye(4) / 4).item() == pytest.approx(math.log(4))
    independent = torch.outer(torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.25, 0.25]))
    assert mutual_information(independent).item() == pytest.approx(0, abs=1e-7)
