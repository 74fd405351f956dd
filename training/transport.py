"""Entropic optimal transport between minibatches.

Throughout, for samples x_1..x_n, y_1..y_m of weights a and b (uniform unless given) and a
cost matrix C_ij = c(x_i, y_j), the primal problem (10) is

    W_ε = min over P with P 1 = a, Pᵀ 1 = b of  Σ P C + ε KL(P | a bᵀ)

and its dual (13)

    W_ε = max over f, g of  Σ a f + Σ b g + ε − ε Σ_ij a_i b_j exp((f_i + g_j − C_ij) / ε).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def c_transform(potential: Tensor, cost: Tensor, *, epsilon: float) -> Tensor:
    """The (c, ε)-transform (25) of a potential of the columns, for uniform weights.

        f_i = −ε log mean_j exp((g_j − C_ij) / ε)

    The potential λQ of (23) belongs inside: hand in the cost C − λQ.

    Args:
        potential: g, (m,).
        cost: C, (n, m).
        epsilon: ε > 0, in units of the cost.

    Returns:
        f, (n,): the best row potential for g, so that the plan of (f, g) has exact rows.
    """
    exponent = (potential - cost) / epsilon - math.log(cost.shape[1])
    return -epsilon * torch.logsumexp(exponent, dim=1)


def plan_of_potential(potential: Tensor, cost: Tensor, *, epsilon: float) -> Tensor:
    """The plan (29) of a column potential and its (c, ε)-transform, for uniform weights.

        P_ij = softmax_j((g_j − C_ij) / ε) / n

    Rows sum to 1/n exactly; columns do so as far as the potential is optimal.

    Args:
        potential: g, (m,).
        cost: C, (n, m); C − λQ for the informative problem.
        epsilon: ε > 0.

    Returns:
        P, (n, m).
    """
    return torch.softmax((potential - cost) / epsilon, dim=1) / cost.shape[0]


class SinkhornSolution(NamedTuple):
    """A solution of the entropic problem on one pair of minibatches."""

    row_potential: Tensor  # f, (n,)
    column_potential: Tensor  # g, (m,)
    transport_plan: Tensor  # P, (n, m), exact rows
    value: Tensor  # Σ a f + Σ b g: the dual value, as the rows of P are exact


def sinkhorn(
    cost: Tensor,
    *,
    epsilon: float,
    iterations: int,
    row_log_weights: Tensor | None = None,
    column_log_weights: Tensor | None = None,
) -> SinkhornSolution:
    """Sinkhorn's algorithm in the log domain (Cuturi 2013; Peyré and Cuturi 2019, Remark 4.23).

    Alternates g ← (c, ε)-transform of f and f ← (c, ε)-transform of g; ends with f.

    Args:
        cost: C, (n, m).
        epsilon: ε > 0.
        iterations: the number of updates of both potentials, at least 1.
        row_log_weights: log a, (n,); uniform where absent.
        column_log_weights: log b, (m,); uniform where absent.

    Returns:
        Potentials, plan and dual value, detached from the graph of the cost: by the envelope
        theorem the gradient of W_ε in the cost is the plan.
    """
    with torch.no_grad():
        log_a = _log_weights(row_log_weights, cost.shape[0], cost)
        log_b = _log_weights(column_log_weights, cost.shape[1], cost)
        kernel = -cost / epsilon
        f, g = torch.zeros_like(kernel[:, 0]), torch.zeros_like(kernel[0])  # in units of ε until the end
        for _ in range(iterations):
            f = -torch.logsumexp(kernel + (g + log_b), dim=1)
            g = -torch.logsumexp(kernel + (f + log_a)[:, None], dim=0)
        f = -torch.logsumexp(kernel + (g + log_b), dim=1)
        plan = torch.softmax(kernel + (g + log_b), dim=1) * log_a.exp()[:, None]
        value = epsilon * ((log_a.exp() * f).sum() + (log_b.exp() * g).sum())
        return SinkhornSolution(epsilon * f, epsilon * g, plan, value)


def plan_perplexity(plan: Tensor) -> Tensor:
    """The effective number of columns a row is spread over: exp of the mean entropy of the plan's rows."""
    rows = plan / plan.sum(dim=1, keepdim=True)
    return torch.exp(torch.special.entr(rows).sum(dim=1).mean())


def column_marginal_error(plan: Tensor) -> Tensor:
    """Σ_j |Σ_i P_ij − 1/m|: 0 for a coupling, at most 2."""
    return (plan.sum(dim=0) - 1 / plan.shape[1]).abs().sum()


def _log_weights(log_weights: Tensor | None, count: int, like: Tensor) -> Tensor:
    return like.new_full((count,), -math.log(count)) if log_weights is None else log_weights
