"""Figure 2: the information term makes one latent dimension informative, and only that one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from ..information_plan import InformationPlan, information_plan, mutual_information
from .drawing import Drawing, footer, page, title

_CENTRES = (0.2, 0.5, 0.8)
_SIGMA = 0.05
EPSILON = 0.01
# In units of ε: the entropic plan, the last convex problem, and the paper's 5.
LAMBDAS = (0.0, 1.0, 5.0)


class SquareProblem(NamedTuple):
    """Latents on the unit square, data on its diagonal."""

    axis: Tensor  # the grid of z1 and of z2, (n,)
    position: Tensor  # t of y = (t, t), (m,)
    weight: Tensor  # of y, (m,)
    cost: Tensor  # ‖z − y‖², (n, n, m)


def square_problem(latents: int, positions: int) -> SquareProblem:
    """The problem of Figure 2 in float64: G = id, so that c(G(z), y) = ‖z − y‖².

    ζ is uniform on a grid of `latents`² points of the unit square; ν is an equal mixture of three
    Gaussians along the diagonal, at 0.2, 0.5 and 0.8 of it, with σ = 0.05 of it.
    """
    axis = (torch.arange(latents, dtype=torch.float64) + 0.5) / latents
    position = (torch.arange(positions, dtype=torch.float64) + 0.5) / positions
    weight = sum(torch.exp(-((position - centre) ** 2) / (2 * _SIGMA**2)) for centre in _CENTRES)
    cost = (axis[:, None, None] - position) ** 2 + (axis[None, :, None] - position) ** 2
    return SquareProblem(axis, position, weight / torch.as_tensor(weight).sum(), cost)


def draw(quick: bool, progress: Callable[[str], None]) -> Drawing:
    """Computes the plans for each λ and draws what z1 and what z2 say about y.

    The paper gives λ = 5 and no ε. Here ε = 0.01 of the squared side of the square, and λ is read
    in units of it: λ = 5ε. That problem is not convex; λ = ε, the last convex one, is shown as well.
    In both nothing but the cost restrains what z1 says about y, so that I(z1; y) depends on the
    resolution of z1: it is at most the logarithm of the points on its grid.

    Args:
        quick: a coarse grid and fewer rounds.
        progress: told how far it is.
    """
    problem = square_problem(*((12, 24) if quick else (24, 48)))
    rounds, tolerance = (30, 1e-5) if quick else (200, 1e-6)
    plans = []
    for weight in LAMBDAS:
        name = f"figure 2: {_name(weight)}"
        plan = information_plan(
            problem.cost,
            epsilon=EPSILON,
            lambda_=weight * EPSILON,
            column_log_weights=problem.weight.log(),
            rounds=rounds,
            marginal_tolerance=tolerance,
            tolerance=tolerance / 10,
            progress=lambda count, value, name=name: progress(f"{name}, round {count}: objective {value:.5f}"),  # type: ignore[misc]
        )
        plans.append(plan)
    numbers = {
        "grid": list(problem.cost.shape),
        "epsilon": EPSILON,
        "data": {"centres": list(_CENTRES), "sigma": _SIGMA},
        "limit of I(z1;y) in nats": math.log(len(problem.axis)),
        "plans": [_numbers(plan, weight * EPSILON, problem) for plan, weight in zip(plans, LAMBDAS, strict=True)],
    }
    return Drawing(_figure(problem, plans), numbers)


def _numbers(plan: InformationPlan, lambda_: float, problem: SquareProblem) -> dict[str, Any]:
    first, second = plan.transport_plan.sum(dim=1), plan.transport_plan.sum(dim=0)
    return {
        "lambda": lambda_,
        "I(z1;y) in nats": float(mutual_information(first)),
        "I(z2;y) in nats": float(mutual_information(second)),
        "transport cost": float((plan.transport_plan * problem.cost).sum()),
        "rounds": len(plan.objective),
        "objective": plan.objective,
        "marginal error": plan.marginal_error,
    }


def _figure(problem: SquareProblem, plans: list[InformationPlan]) -> Figure:
    figure = page(2.45 * (len(plans) + 1), 5.5)
    panels = figure.subplots(2, len(plans) + 1, sharex="col")
    square, density = panels[0, 0], panels[1, 0]
    square.set_facecolor("#e4e4e4")
    position, weights = problem.position.numpy(), problem.weight.numpy()
    square.scatter(position, position, c=weights, cmap="Blues", s=10, vmin=-0.2 * weights.max())
    square.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", ylabel="z₂, y₂")
    title(square, "ζ and ν", "uniform on the square; on its diagonal")
    density.fill_between(position, weights * len(position), color="#08519c", linewidth=0)
    density.set(xlim=(0, 1), ylim=(0, None), xlabel="position of y on the diagonal", ylabel="density of ν")
    density.set_box_aspect(1)
    for column, (plan, weight) in enumerate(zip(plans, LAMBDAS, strict=True), start=1):
        for row, code in enumerate(("z₁", "z₂")):
            joint = plan.transport_plan.sum(dim=1 - row)
            axes = panels[row, column]
            axes.imshow(joint.numpy(), origin="lower", extent=(0, 1, 0, 1), cmap="Blues", norm=PowerNorm(0.6))
            information = float(mutual_information(joint))
            title(axes, _name(weight) if row == 0 else "", f"I({code}; y) = {information:.2f} nats")
            if column == 1:
                axes.set_ylabel(code, rotation=0, labelpad=10)
        panels[1, column].set_xlabel("position of y on the diagonal")
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(9)
    count = len(problem.axis)
    footer(
        figure,
        f"ε = {EPSILON:g}, grid {count} × {count}: I(z₁; y) ≤ log {count} = {math.log(count):.2f} nats; "
        "from λ = ε on it depends on the grid",
    )
    return figure


def _name(weight: float) -> str:
    return {0.0: "λ = 0", 1.0: "λ = ε"}.get(weight, f"λ = {weight:g}ε")
