"""Figure 1: the smoothed OT loss collapses on medians and means, and the Sinkhorn loss does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..configuration import Configuration, GroundCostName, preset_configuration
from ..datasets import Dataset
from ..ground_cost import GROUND_COSTS
from ..randomness import stream
from .drawing import Drawing, draw_images, page, title
from .runs import train_run, trained_generator

_COLUMNS = 8
_SPREAD_SAMPLES = 500
_COST_NAMES: dict[GroundCostName, str] = {"l1": "ℓ₁", "squared-l2": "ℓ₂²"}


class Panel(NamedTuple):
    """One generator's samples and what was measured of them."""

    settings: Configuration
    samples: Tensor  # (count, 1, 32, 32)
    spread: float  # mean pairwise cost of generated samples over that of real ones
    cost_mean: float  # of c between two real images
    cost_std: float
    column_marginal_error: float  # of the last plans, 0 for exact couplings
    plan_perplexity: float


def panel_settings(quick: bool, seed: int) -> list[Configuration]:
    """The runs of the figure: for each ε, each ground cost with the loss W_ε alone and with S_ε.

    Each minibatch is solved by Sinkhorn's algorithm, so that what is seen is the loss's doing and not
    that of a dual network still under way; Q observes, λ = 0. The costs are means over pixels in
    [−1, 1]: between two digits ℓ₁ is 0.25 ± 0.06 and ℓ₂² 0.40 ± 0.11, so that one ε means about half
    as much smoothing for ℓ₂². The paper's ε = 0.001 is so small against those that a plan between
    minibatches is nearly a matching; 0.05 is shown as well.
    """
    size: dict[str, Any] = dict(batch_size=32, iterations=40) if quick else dict(batch_size=128, iterations=150)
    solver: dict[float, int] = {0.05: 50} if quick else {0.001: 300, 0.05: 50}
    return [
        preset_configuration(
            "mnist",
            solver="sinkhorn",
            lambda_=0.0,
            ground_cost=ground_cost,
            debias=debias,
            epsilon=epsilon,
            sinkhorn_iterations=sinkhorn_iterations,
            generator_learning_rate=1e-3,
            seed=seed,
            **size,
        )
        for epsilon, sinkhorn_iterations in solver.items()
        for ground_cost in _COST_NAMES
        for debias in (False, True)
    ]


def draw(
    panels: list[Configuration],
    dataset: Dataset,
    runs: Path,
    prefix: str,
    data_directory: Path | None,
    device: torch.device,
    progress: Callable[[str], None],
) -> Drawing:
    """Trains the runs, or finds them finished, and draws samples of each.

    Args:
        panels: see panel_settings.
        dataset: MNIST, on the CPU.
        runs: where the run directories are or will be.
        prefix: of their names.
        data_directory: where MNIST was read from.
        device: to train on.
        progress: told which run is being trained.
    """
    drawn = []
    for settings in panels:
        progress(f"figure 1: {_loss(settings)}, {_COST_NAMES[settings.ground_cost]}, ε = {settings.epsilon:g}")
        name = f"{prefix}-{_loss_word(settings)}-{settings.ground_cost}-{settings.epsilon:g}"
        run = train_run(runs / name, settings, dataset, {"data_directory": data_directory}, device)
        drawn.append(_panel(settings, trained_generator(run, settings, dataset), run.read_metrics()[-1], dataset))
    return Drawing(_figure(drawn, dataset), {"panels": [_numbers(panel) for panel in drawn]})


@torch.no_grad()
def _panel(settings: Configuration, generator: torch.nn.Module, last_record: dict[str, Any], dataset: Dataset) -> Panel:
    random = stream(settings.seed, "figure 1")
    cost = GROUND_COSTS[settings.ground_cost]
    real = [dataset.draw(_SPREAD_SAMPLES, random) for _ in range(2)]
    latents = [settings.latent_space.draw(_SPREAD_SAMPLES, random) for _ in range(2)]
    generated = [generator(each) for each in latents]
    real_cost = cost(*real)
    return Panel(
        settings=settings,
        samples=generated[0][: _COLUMNS**2],
        spread=float(cost(*generated).mean() / real_cost.mean()),
        cost_mean=float(real_cost.mean()),
        cost_std=float(real_cost.std()),
        column_marginal_error=last_record["column_marginal_error"],
        plan_perplexity=last_record["plan_perplexity"],
    )


def _figure(panels: list[Panel], dataset: Dataset) -> Figure:
    columns = min(4, len(panels))
    rows = len(panels) // columns
    figure = page(2.5 * columns, 2.9 * rows + 0.35)
    for letter, (axes, panel) in enumerate(
        zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True)
    ):
        settings = panel.settings
        draw_images(axes, panel.samples, _COLUMNS, dataset)
        what = f"{_loss(settings)}, {_COST_NAMES[settings.ground_cost]}, ε = {settings.epsilon:g}"
        title(axes, f"({'abcdefgh'[letter]}) {what}", f"spread {panel.spread:.2f} of the data's")
    settings = panels[0].settings
    figure.supxlabel(
        f"{settings.iterations:,} iterations at batch size {settings.batch_size}, plans by Sinkhorn's algorithm",
        fontsize=8,
        color="#555555",
    )
    return figure


def _numbers(panel: Panel) -> dict[str, Any]:
    settings = panel.settings
    return {
        "loss": _loss_word(settings),
        "spread": panel.spread,
        "real cost, mean": panel.cost_mean,
        "real cost, standard deviation": panel.cost_std,
        "plan perplexity": panel.plan_perplexity,
        "column marginal error": panel.column_marginal_error,
        "settings": settings.to_mapping(),
    }


def _loss(settings: Configuration) -> str:
    return "Sinkhorn loss" if settings.debias else "smoothed OT"


def _loss_word(settings: Configuration) -> str:
    return "sinkhorn" if settings.debias else "smoothed"
