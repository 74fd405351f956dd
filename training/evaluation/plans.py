"""What the transport plans of a trained model carry, and how far its solver is from the exact ones."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from ..code_distribution import make_code_distribution
from ..ground_cost import GROUND_COSTS
from ..information import information_bounds
from ..networks import running_statistics_kept
from ..solvers import make_solver
from ..trained_model import TrainedModel
from ..transport import SinkhornSolution, column_marginal_error, plan_perplexity, sinkhorn

_FIRST_ITERATIONS, _LAST_ITERATIONS = 250, 16_000
_CONVERGED = 1e-6


class PlanMeasurement(NamedTuple):
    """Averages over minibatches of training data, of the size that the model was trained on."""

    fenchel: float  # the bound (20) on KL(π♯γ̄ | ζ1⊗ν), in nats
    donsker_varadhan: float  # its logarithmic form, in nats; the log of a minibatch's mean biases it upwards
    per_sample: float  # Q normalised for each y, the bound (22) of Barber and Agakov, in nats
    perplexity: float  # the effective number of data points that a latent is coupled to
    column_marginal_error: float  # Σ_j |Σ_i P_ij − 1/B|, 0 for a coupling, at most 2
    dual_gap: float  # W(ζ, ν) of the minibatch less the solver's dual value, ≥ 0 up to rounding, in units of the cost
    self_dual_gap: float  # the same of W(G♯ζ, G♯ζ); 0 where the loss has no self term
    convergence_error: float  # the largest column marginal error of the plans of W; above 1e-6 the gaps are too small


@torch.no_grad()
def measure_plans(model: TrainedModel, minibatches: int, random: torch.Generator) -> PlanMeasurement:
    """Solves minibatches as training does, and again to convergence.

    The data are drawn from the training split and the networks normalise by their batch, as in
    training; the generator is the one that was trained, not its average.

    Args:
        model: with a checkpoint of any solver.
        minibatches: how many to average over, at least 1.
        random: for latents and data, on the CPU.
    """
    settings, networks = model.configuration, copy.deepcopy(model.networks).train()
    space, size = settings.latent_space, settings.batch_size
    ground_cost = GROUND_COSTS[settings.ground_cost]
    distribution, solver = make_code_distribution(settings), make_solver(networks, settings)
    found, errors = [], []
    for _ in range(minibatches):
        z, y = space.draw(size, random), model.dataset.draw(size, random)
        with running_statistics_kept(networks):
            x1, x2 = (networks.generator(space.draw(size, random)) for _ in range(2))
            features = networks.trunk(y)
            scores = networks.code_head(features)
            cost = ground_cost(networks.generator(z), y)
        q = distribution.pairwise(z[:, : space.informative], scores)
        self_cost = ground_cost(x1, x2) if settings.debias else None
        plans = solver.plans(cost=cost, q=q, real_features=features, self_cost=self_cost, generated=x2)
        exact = exact_solution(cost - settings.lambda_ * q, settings.epsilon)
        errors.append(float(column_marginal_error(exact.transport_plan)))
        self_gap = torch.zeros(())
        if self_cost is not None:
            exact_self = exact_solution(self_cost, settings.epsilon)
            errors.append(float(column_marginal_error(exact_self.transport_plan)))
            self_gap = exact_self.value - plans.self_value
        found.append(
            torch.stack(
                [
                    *information_bounds(plans.transport_plan, q, distribution.log_partition(scores)),
                    plan_perplexity(plans.transport_plan),
                    column_marginal_error(plans.transport_plan),
                    exact.value - plans.value,
                    self_gap,
                ]
            ).double()
        )
    return PlanMeasurement(*[*torch.stack(found).mean(dim=0).tolist(), max(errors)])


def exact_solution(cost: Tensor, epsilon: float) -> SinkhornSolution:
    """The plan and W_ε of one pair of minibatches: Sinkhorn's algorithm in float64, until it is a coupling to 1e-6.

    Args:
        cost: C, (n, m).
        epsilon: ε > 0.

    Returns:
        The solution; after 16,000 iterations whatever it is then, its value a lower bound still. The
        plan's column_marginal_error tells which of the two it is.
    """
    iterations = _FIRST_ITERATIONS
    while True:
        solution = sinkhorn(cost.double(), epsilon=epsilon, iterations=iterations)
        if iterations >= _LAST_ITERATIONS or column_marginal_error(solution.transport_plan) <= _CONVERGED:
            return solution
        iterations *= 4
