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
from ..run_directory import RunDirectory
from ..trained_model import read_networks
from .drawing import Drawing, draw_images, footer, page, title
from .runs import FigureError, FigureRun, train_run

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

    Each minibatch is solved by Sinkhorn's algorithm, so that what is seen is nearly the loss's doing alone
    and not that of a dual network still under way: nearly, for at ε = 0.001 the columns of the plans do
    not quite hold, see column_marginal_error. Q observes, λ = 0. The costs are means over pixels in
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


def figure_runs(
    quick: bool, seed: int, dataset: Dataset, directory: Path, prefix: str, data_directory: Path | None
) -> list[FigureRun]:
    """The runs of the figure, to be trained.

    Args:
        quick: see panel_settings.
        seed: see panel_settings.
        dataset: MNIST, on the CPU.
        directory: where the run directories are or will be.
        prefix: of their names.
        data_directory: where MNIST was read from.
    """
    return [
        FigureRun(
            directory / f"{prefix}-{_loss_word(settings)}-{settings.ground_cost}-{settings.epsilon:g}",
            settings,
            dataset,
            data_directory,
        )
        for settings in panel_settings(quick, seed)
    ]


def draw(runs: list[FigureRun], device: torch.device, progress: Callable[[str], None]) -> Drawing:
    """Trains the runs, or finds them finished, and draws samples of each.

    Args:
        runs: see figure_runs.
        device: to train on.
        progress: told which run is being trained.

    Raises:
        FigureError, RunDirectoryError, TrainingDivergedError, OSError: see train_run.
    """
    panels = []
    for run in runs:
        progress(f"figure 1: {_what(run.settings)}")
        panels.append(_panel(run, train_run(run, device)))
    numbers = {"data": runs[0].dataset.describe(), "panels": [_numbers(panel) for panel in panels]}
    return Drawing(_figure(panels, runs[0].dataset), numbers)


def _last_record(run: RunDirectory, settings: Configuration) -> dict[str, Any]:
    """The log's line of the last iteration."""
    records = run.read_metrics()
    if not records or records[-1]["iteration"] != settings.iterations:
        raise FigureError(
            f"the metrics.jsonl of {run.path} lacks its last iteration: remove that directory to have it trained again"
        )
    return records[-1]


@torch.no_grad()
def _panel(run: FigureRun, trained: RunDirectory) -> Panel:
    settings, dataset = run.settings, run.dataset
    last_record = _last_record(trained, settings)
    generator = read_networks(trained, dataset).networks.sampling_generator
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
    figure = page(2.5 * columns, 2.9 * rows + 0.6)
    for letter, (axes, panel) in enumerate(
        zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True)
    ):
        settings = panel.settings
        draw_images(axes, panel.samples, _COLUMNS, dataset)
        title(axes, f"({'abcdefgh'[letter]}) {_what(settings)}", f"spread {panel.spread:.2f} of the data's")
    settings = panels[0].settings
    smallest = min(panel.settings.epsilon for panel in panels)
    error = max(panel.column_marginal_error for panel in panels if panel.settings.epsilon == smallest)
    footer(
        figure,
        f"{settings.iterations:,} iterations at batch size {settings.batch_size}; costs are means over pixels in "
        f"[−1, 1], and ε is in their units; plans by Sinkhorn's algorithm, whose column marginal error at "
        f"ε = {smallest:g} is at most {error:.2g} (of 2)",
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


def _what(settings: Configuration) -> str:
    loss = "Sinkhorn loss" if settings.debias else "smoothed OT"
    return f"{loss}, {_COST_NAMES[settings.ground_cost]}, ε = {settings.epsilon:g}"


def _loss_word(settings: Configuration) -> str:
    return "sinkhorn" if settings.debias else "smoothed"
