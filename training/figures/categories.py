"""Figure 3: what the category decides, without and with the information term."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray

from ..datasets.gaussians import Gaussians
from ..evaluation.modes import mode_coverage
from ..randomness import stream
from ..trained_model import TrainedModel
from .drawing import Drawing, draw_images, page, title
from .runs import facts

_ROWS = 10
_POINTS = 2_500
_GOLDEN_RATIO = 0.618034
_NAMES = ("baseline", "informative")


def draw(gaussians: tuple[TrainedModel, TrainedModel], mnist: tuple[TrainedModel, TrainedModel], seed: int) -> Drawing:
    """Draws the four panels: Gaussians and MNIST, each baseline (λ = 0) and informative.

    Gaussians: samples from the prior, coloured by category, over real ones in grey. MNIST: one draw
    of the noise along each row, one category down each column, styles at 0.

    Args:
        gaussians: baseline and informative model.
        mnist: baseline and informative model.
        seed: of the latents.
    """
    figure = page(8.6, 8.9)
    panels = figure.subplots(2, 2)
    numbers: dict[str, Any] = {"seed": seed}
    for column, name in enumerate(_NAMES):
        numbers[f"gaussians, {name}"] = _draw_points(
            panels[0, column], gaussians[column], f"({'ab'[column]}) Gaussians, {name}", seed
        )
        numbers[f"mnist, {name}"] = _draw_digits(
            panels[1, column], mnist[column], f"({'cd'[column]}) MNIST, {name}", seed
        )
    return Drawing(figure, numbers)


def category_order(model: TrainedModel) -> list[int]:
    """The categories by the label each came to mean, the purer first; those without a label last.

    The categories of a baseline mean nothing to its generator: they keep their order.
    """
    if model.configuration.lambda_ == 0:
        return list(range(model.configuration.categories))
    ranks = {label: rank for rank, label in enumerate(model.dataset.label_names)}
    named = model.categories
    return sorted(
        range(len(named)),
        key=lambda category: (ranks.get(named[category].label, len(ranks)), -named[category].label_share),
    )


def category_names(model: TrainedModel) -> list[str]:
    """What to write beside the categories in that order: their labels, or a dash where one has none.

    Those of a baseline get their indices.
    """
    order = category_order(model)
    if model.configuration.lambda_ == 0:
        return [str(category) for category in order]
    return [model.categories[category].label or "–" for category in order]


@torch.no_grad()
def _draw_points(axes: Axes, model: TrainedModel, name: str, seed: int) -> dict[str, Any]:
    space = model.configuration.latent_space
    random = stream(seed, "figure 3, points")
    real = model.dataset.draw(_POINTS, random)
    latents = space.draw(_POINTS, random)
    samples, categories = model.networks.sampling_generator(latents), space.category_of(latents)
    mixture = cast(Gaussians, model.dataset)
    centres = mixture.centres
    coverage = mode_coverage(samples, categories, centres, mixture.sigma)
    rank = torch.empty(space.categories, dtype=torch.int64)
    rank[category_order(model)] = torch.arange(space.categories)
    axes.scatter(real[:, 0].numpy(), real[:, 1].numpy(), s=16, color="#d4d4d4", linewidths=0)
    colours = _colours(space.categories)[rank[categories].numpy()]
    axes.scatter(samples[:, 0].numpy(), samples[:, 1].numpy(), s=4, c=colours, linewidths=0)
    reach = 1.35 * float(centres.abs().max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.tick_params(labelsize=7)
    title(
        axes,
        name,
        f"{coverage.modes} of {len(centres)} modes, {coverage.high_quality:.0%} within 3σ, "
        f"code-mode purity {coverage.code_mode_purity:.2f}",
    )
    measured = {
        "modes": coverage.modes,
        "high quality": coverage.high_quality,
        "code-mode purity": coverage.code_mode_purity,
    }
    return measured | facts(model)


@torch.no_grad()
def _draw_digits(axes: Axes, model: TrainedModel, name: str, seed: int) -> dict[str, Any]:
    space, order = model.configuration.latent_space, category_order(model)
    random = stream(seed, "figure 3, digits")
    noise = torch.randn(_ROWS, space.noise, generator=random).repeat_interleave(space.categories, dim=0)
    latents = space.assemble(torch.tensor(order).repeat(_ROWS), torch.zeros(len(noise), space.styles), noise)
    images = model.networks.sampling_generator(latents)
    draw_images(axes, images, space.categories, model.dataset, column_names=category_names(model))
    recovery = sum(category.recovery for category in model.categories) / space.categories
    title(axes, name, f"category read back from {recovery:.0%} of samples")
    labels = [model.categories[category].label for category in order]
    return {"categories": order, "their labels": labels, "code recovery": recovery} | facts(model)


def _colours(count: int) -> NDArray[np.float64]:
    """Colours (count, 3) of which neighbours are far apart: hues by golden-ratio steps, three brightnesses."""
    index = np.arange(count)
    hue, value = (index * _GOLDEN_RATIO) % 1, 0.95 - 0.2 * (index % 3)
    return hsv_to_rgb(np.stack([hue, np.full(count, 0.85), value], axis=1))
