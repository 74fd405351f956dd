"""The information plan on a product of finite spaces, by difference-of-convex programming.

For a fixed generator, latents z = (z1, z2) with uniform weights and data y_j of weights b_j, the
plan of the informative problem (19) is

    min over γ in Γ(ζ, ν) of  F(γ) = ∫ c dγ + ε KL(γ | ζ⊗ν) − λ KL(π_(z1,y)♯γ | ζ1⊗ν)

the difference of two convex functions. By the chain rule the two KL terms are (ε − λ) of the
information that z1 carries about y plus ε of what z2 adds, so that F is convex for λ ≤ ε. At λ = ε
nothing but the cost restrains what z1 says about y, so that the resolution of z1 counts already. For
λ > ε F is not convex, and in the continuum not even bounded below: that resolution is then what limits
its information.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .transport import sinkhorn

_SINKHORN_ITERATIONS = 50  # between looks at the marginals


class InformationPlan(NamedTuple):
    """A plan and how it was reached."""

    transport_plan: Tensor  # P, (n1, n2, m), exact in z
    objective: list[float]  # F after each round, in units of the cost; it falls
    marginal_error: float  # Σ_j |Σ_ik P_ikj − b_j| of the last round


def information_plan(
    cost: Tensor,
    *,
    epsilon: float,
    lambda_: float,
    column_log_weights: Tensor | None = None,
    rounds: int = 200,
    sinkhorn_iterations: int = 20_000,
    marginal_tolerance: float = 1e-9,
    tolerance: float = 1e-9,
    progress: Callable[[int, float], None] | None = None,
) -> InformationPlan:
    """Solves for the plan by the DC algorithm (Tao and An 1997), each step by Sinkhorn's algorithm.

    A round replaces the concave term by its tangent at the present plan, so that

        γ ← argmin over Γ(ζ, ν) of  ∫ (c − λ log dπ_(z1,y)♯γ / d(ζ1⊗ν)) dγ' + ε KL(γ' | ζ⊗ν)

    an entropic problem. F falls from round to round as long as each of these is solved, which for
    λ > ε takes thousands of iterations: they start from the potential of the round before, and
    end when the marginals hold. The first round is the entropic plan, λ = 0.

    Args:
        cost: c(G(z1_i, z2_k), y_j), (n1, n2, m). Use float64 where ε is small.
        epsilon: ε > 0, in units of the cost.
        lambda_: λ ≥ 0.
        column_log_weights: log b, (m,); uniform where absent.
        rounds: at most so many.
        sinkhorn_iterations: at most so many in a round.
        marginal_tolerance: a round ends once its marginal error is below this.
        tolerance: the algorithm ends once a round lowers F by less than this.
        progress: told of each round and of F after it.
    """
    n1, n2, m = cost.shape
    log_b = cost.new_full((m,), -math.log(m)) if column_log_weights is None else column_log_weights
    q = torch.zeros_like(cost[:, 0])  # log dπ/d(ζ1⊗ν), (n1, m)
    potential = torch.zeros_like(log_b)
    objective: list[float] = []
    for count in range(1, rounds + 1):
        tangent_cost = (cost - lambda_ * q[:, None]).flatten(0, 1)
        for _ in range(max(1, sinkhorn_iterations // _SINKHORN_ITERATIONS)):
            # With the potential so far inside the cost, Sinkhorn's algorithm goes on from it.
            solution = sinkhorn(
                tangent_cost - potential,
                epsilon=epsilon,
                iterations=_SINKHORN_ITERATIONS,
                column_log_weights=log_b,
            )
            potential = potential + solution.column_potential
            marginal_error = float((solution.transport_plan.sum(dim=0) - log_b.exp()).abs().sum())
            if marginal_error < marginal_tolerance:
                break
        log_density = (solution.row_potential[:, None] + potential - tangent_cost) / epsilon
        log_density = log_density.reshape(n1, n2, m)
        plan = solution.transport_plan.reshape(n1, n2, m)
        q = torch.logsumexp(log_density, dim=1) - math.log(n2)
        value = (plan * cost).sum() + epsilon * (plan * log_density).sum() - lambda_ * (plan.sum(dim=1) * q).sum()
        objective.append(float(value))
        if progress is not None:
            progress(count, objective[-1])
        if count > 1 and objective[-2] - objective[-1] < tolerance:
            break
    return InformationPlan(plan, objective, marginal_error)


def mutual_information(joint: Tensor) -> Tensor:
    """KL(P | P 1 ⊗ Pᵀ 1) of a joint distribution (n, m), in nats."""
    product = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    information: Tensor = (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, product)).sum()
    return information
