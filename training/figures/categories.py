"""Figure 3: what the category decides, without and with the information term."""

from __future__ import annotations

import math
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
from .captions import caption, differences, facts
from .drawing import Drawing, draw_images, footer, page, title

_ROWS = 10
_POINTS = 2_500
_GOLDEN_RATIO = 0.618034
_BRIGHT, _MIDDLE, _DARK = 1.0, 0.8, 0.6
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
    figure = page(8.6, 9.4)
    panels = figure.subplots(2, 2)
    numbers: dict[str, Any] = {"seed": seed}
    for column, name in enumerate(_NAMES):
        numbers[f"gaussians, {name}"] = _draw_points(
            panels[0, column], gaussians[column], f"({'ab'[column]}) Gaussians, {name}", seed
        )
        numbers[f"mnist, {name}"] = _draw_digits(
            panels[1, column], mnist[column], f"({'cd'[column]}) MNIST, {name}", seed
        )
    for data, (baseline, informative) in (("gaussians", gaussians), ("mnist", mnist)):
        numbers[f"{data}, differing besides lambda"] = differences(baseline, informative)
    footer(figure, caption(*gaussians), caption(*mnist))
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

    Nothing for a baseline.
    """
    if model.configuration.lambda_ == 0:
        return []
    return [model.categories[category].label or "–" for category in category_order(model)]


def labels_right(model: TrainedModel) -> float:
    """The share of the training samples that bear the label of the category that Q assigns them to."""
    return sum(category.sample_share * category.label_share for category in model.categories)


def category_colours(count: int) -> NDArray[np.float64]:
    """Colours (count, 3) in [0, 1], all told apart: evenly spaced hues, of which neighbours differ in brightness.

    Successive colours are about a golden section of the circle of hues apart.
    """
    step = min(
        (each for each in range(1, count + 1) if math.gcd(each, count) == 1),
        key=lambda each: abs(each - _GOLDEN_RATIO * count),
    )
    position = np.arange(count) * step % count
    value = np.where(position % 2 == 0, _BRIGHT, _DARK)
    if count % 2:
        value[position == count - 1] = _MIDDLE  # between two bright ones
    return hsv_to_rgb(np.stack([position / count, np.ones(count), value], axis=1))


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
    colours = category_colours(space.categories)[rank[categories].numpy()]
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
    column_names = category_names(model)
    draw_images(axes, images, space.categories, model.dataset, column_names=column_names)
    recovery = sum(category.recovery for category in model.categories) / space.categories
    note = f"category read back from {recovery:.0%} of samples"
    measured: dict[str, Any] = {"code recovery": recovery}
    if column_names:
        right = labels_right(model)
        note += f"\nlabels right for {right:.0%} of training images"
        named = [model.categories[category] for category in order]
        measured |= {
            "their labels": [category.label for category in named],
            "label_share": [category.label_share for category in named],
            "sample_share": [category.sample_share for category in named],
            "labels right": right,
        }
    title(axes, name, note)
    return {"categories": order} | measured | facts(model)
