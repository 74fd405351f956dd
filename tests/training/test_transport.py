"""Transport against closed forms and against an independent implementation."""

import math

import numpy as np
import ot
import pytest
import torch
from geomloss import SamplesLoss
from infosink.training.ground_cost import l1, squared_l2
from infosink.training.transport import (
    c_transform,
    column_marginal_error,
    plan_of_potential,
    plan_perplexity,
    sinkhorn,
)
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def entropic_value(x: Tensor, y: Tensor, cost, epsilon: float, iterations: int = 1000) -> float:
    return sinkhorn(cost(x, y), epsilon=epsilon, iterations=iterations).value.item()


def sinkhorn_divergence(x: Tensor, y: Tensor, cost, epsilon: float) -> float:
    cross, self_x, self_y = (entropic_value(*pair, cost, epsilon) for pair in ((x, y), (x, x), (y, y)))
    return cross - 0.5 * self_x - 0.5 * self_y


@pytest.fixture
def clouds() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(24, 2, generator=random, dtype=torch.float64)
    y = 0.5 * torch.randn(24, 2, generator=random, dtype=torch.float64) + torch.tensor([1.0, -0.5])
    return x, y


def test_pixel_costs_are_means_and_point_costs_are_sums():
    images, other = torch.full((1, 1, 32, 32), 1.0), torch.full((1, 1, 32, 32), -1.0)
    assert l1(images, other).item() == pytest.approx(2.0)
    assert squared_l2(images, other).item() == pytest.approx(4.0)
    points, origin = torch.tensor([[3.0, -4.0]]), torch.zeros(1, 2)
    assert l1(points, origin).item() == pytest.approx(7.0)
    assert squared_l2(points, origin).item() == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("mean", "variance", "sigma", "expected", "debiased"),
    [
        ((0.0, 0.5), (0.04, 0.01), 0.1, 0.278175080165, 0.25970579412838),
        ((0.0, 1.0), (1.0, 0.25), 1.0, 2.024012844087, 1.18178735765203),
    ],
)
def test_gaussians_have_the_closed_form_of_janati_et_al(mean, variance, sigma, expected, debiased):
    """Janati, Muzellec, Peyré and Cuturi (2020), with ε = 2σ² and the squared cost, by quadrature on a grid."""
    grids, log_weights = [], []
    for m, v in zip(mean, variance, strict=True):
        grid = torch.linspace(m - 8 * math.sqrt(v), m + 8 * math.sqrt(v), 240, dtype=torch.float64)
        log_density = -((grid - m) ** 2) / (2 * v)
        grids.append(grid[:, None])
        log_weights.append(log_density - torch.logsumexp(log_density, 0))

    def value(i: int, j: int) -> float:
        return sinkhorn(
            squared_l2(grids[i], grids[j]),
            epsilon=2 * sigma**2,
            iterations=150,
            row_log_weights=log_weights[i],
            column_log_weights=log_weights[j],
        ).value.item()

    assert value(0, 1) == pytest.approx(expected, rel=1e-8)
    assert value(0, 1) - 0.5 * value(0, 0) - 0.5 * value(1, 1) == pytest.approx(debiased, rel=1e-8)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 20.0])
def test_a_shift_costs_its_squared_length_at_any_epsilon(clouds, epsilon):
    x, _ = clouds
    shift = torch.tensor([0.3, -0.7], dtype=torch.float64)
    assert sinkhorn_divergence(x, x + shift, squared_l2, epsilon) == pytest.approx(
        shift.square().sum().item(), rel=1e-6
    )


def test_large_epsilon_gives_half_the_energy_distance(clouds):
    x, y = clouds
    energy = l1(x, y).mean() - 0.5 * l1(x, x).mean() - 0.5 * l1(y, y).mean()
    assert sinkhorn_divergence(x, y, l1, 1e5) == pytest.approx(energy.item(), rel=1e-3)


def test_small_epsilon_is_within_epsilon_log_n_of_the_assignment(clouds):
    x, y = clouds
    epsilon = 0.05
    cost = l1(x, y)
    rows, columns = linear_sum_assignment(cost)
    exact = cost[rows, columns].mean().item()
    value = entropic_value(x, y, l1, epsilon, 4000)
    assert exact - 1e-6 <= value <= exact + epsilon * math.log(len(x)) + 1e-6


def test_plan_and_value_agree_with_pot(clouds):
    x, y = clouds
    cost, epsilon = squared_l2(x, y), 0.2
    uniform = np.full(len(x), 1 / len(x))
    reference = ot.sinkhorn(
        uniform, uniform, cost.numpy(), epsilon, method="sinkhorn_log", numItermax=2000, stopThr=1e-14
    )
    solution = sinkhorn(cost, epsilon=epsilon, iterations=2000)
    np.testing.assert_allclose(solution.transport_plan.numpy(), reference, atol=1e-12)
    divergence = (reference * np.log(reference * len(x) ** 2)).sum()
    assert solution.value.item() == pytest.approx((reference * cost.numpy()).sum() + epsilon * divergence, rel=1e-10)


@pytest.mark.parametrize("ground_cost", [l1, squared_l2])
@pytest.mark.parametrize("debias", [False, True])
def test_value_and_gradient_agree_with_geomloss(clouds, ground_cost, debias):
    """Its ε is annealed, so that it stops short of convergence: hence the tolerance."""
    x, y, epsilon = clouds[0].requires_grad_(), clouds[1], 0.3

    def cost(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([ground_cost(*pair) for pair in zip(a, b, strict=True)])

    reference = SamplesLoss("sinkhorn", p=1, blur=epsilon, scaling=0.99, debias=debias, cost=cost, backend="tensorized")
    value = reference(x, y)
    (gradient,) = torch.autograd.grad(value, x)

    costs = {"cross": ground_cost(x, y), "self": ground_cost(x, x), "constant": ground_cost(y, y)}
    solutions = {name: sinkhorn(matrix, epsilon=epsilon, iterations=2000) for name, matrix in costs.items()}
    weights = {"cross": 1.0, "self": -0.5, "constant": -0.5} if debias else {"cross": 1.0}
    expected = sum(weight * solutions[name].value.item() for name, weight in weights.items())
    through_plans = sum(
        weight * (solutions[name].transport_plan * costs[name]).sum() for name, weight in weights.items()
    )
    assert value.item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(gradient, torch.autograd.grad(through_plans, x)[0], atol=1e-3, rtol=0)


def test_the_gradient_of_the_value_is_the_plan(clouds):
    """The envelope theorem, by central differences: what lets training detach the plans."""
    x, y = clouds
    cost, step = l1(x, y), 1e-4
    plan = sinkhorn(cost, epsilon=0.5, iterations=1000).transport_plan
    direction = torch.randn(cost.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    above, below = (sinkhorn(cost + s * direction, epsilon=0.5, iterations=1000).value for s in (step, -step))
    assert ((above - below) / (2 * step)).item() == pytest.approx((plan * direction).sum().item(), rel=1e-6)


def test_a_potential_gives_exact_rows_and_the_optimal_one_the_optimal_plan(clouds):
    x, y = clouds
    cost = l1(x, y)
    arbitrary = torch.linspace(-3, 3, len(y), dtype=torch.float64)
    plan = plan_of_potential(arbitrary, cost, epsilon=0.3)
    torch.testing.assert_close(plan.sum(1), torch.full_like(plan.sum(1), 1 / len(x)))
    assert column_marginal_error(plan).item() > 0.5
    solution = sinkhorn(cost, epsilon=0.3, iterations=1000)
    optimal = plan_of_potential(solution.column_potential, cost, epsilon=0.3)
    torch.testing.assert_close(optimal, solution.transport_plan, atol=1e-12, rtol=1e-9)
    assert column_marginal_error(optimal).item() < 1e-9


def test_the_c_transform_is_the_best_answer_to_a_potential(clouds):
    """No other row potential gives a higher dual value (13)."""
    x, y = clouds
    cost, epsilon = l1(x, y), 0.4
    g = torch.sin(torch.arange(len(y), dtype=torch.float64))

    def dual(f: Tensor) -> Tensor:
        mass = torch.exp((f[:, None] + g[None, :] - cost) / epsilon).mean()
        return f.mean() + g.mean() + epsilon - epsilon * mass

    f = c_transform(g, cost, epsilon=epsilon)
    assert dual(f).item() == pytest.approx((f.mean() + g.mean()).item())
    for seed in range(5):
        other = f + 0.1 * torch.randn(len(f), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert dual(other) < dual(f)


def test_large_costs_and_small_epsilons_do_not_overflow():
    cost = 1e4 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    solution = sinkhorn(cost, epsilon=1e-2, iterations=50)
    assert torch.isfinite(solution.transport_plan).all()
    torch.testing.assert_close(solution.transport_plan.sum(1), torch.full((8,), 1 / 8))


def test_perplexity_counts_the_columns_a_row_is_spread_over():
    matching, uniform = torch.eye(6) / 6, torch.full((6, 6), 1 / 36)
    assert plan_perplexity(matching).item() == pytest.approx(1.0)
    assert plan_perplexity(uniform).item() == pytest.approx(6.0)
