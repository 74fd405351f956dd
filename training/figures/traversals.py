"""Figure 4: what a continuous code changes, and what a noise variable does, without and with the information term."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..randomness import stream
from ..trained_model import TrainedModel
from .captions import caption, differences, facts
from .categories import category_names, category_order, labels_right
from .drawing import Drawing, draw_images, footer, page, title

_STEPS = 10
_NAMES = ("baseline", "informative")
CHANGE = "change from -1 to 1 (all of a code's prior, 68% of the noise's), mean over pixels"
# Column of the style and noise latents, after the category: z1 is the category, so the codes are z2, z3 and z4 on.
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


def draw(models: tuple[TrainedModel, TrainedModel], seed: int) -> Drawing:
    """Draws the six panels: rows baseline and informative; columns z2, z3 and the first noise variable.

    A row of a panel is one draw of the latents with a category of its own, in which the one
    variable goes from −1 to 1; the draws are the same in all panels of a model.

    Args:
        models: baseline and informative model, on images, with at least two styles and one noise variable.
        seed: of the latents.
    """
    figure = page(10.2, 7.9)
    panels = figure.subplots(2, 3)
    numbers: dict[str, Any] = {"seed": seed}
    for row, (name, model) in enumerate(zip(_NAMES, models, strict=True)):
        space, order = model.configuration.latent_space, category_order(model)
        changes = {}
        for column, offset in enumerate((0, 1, space.styles)):
            variable = f"z{_SUBSCRIPTS[2 + offset]}" if offset < 8 else f"z{2 + offset}"
            kind = "noise" if offset == space.styles else "code"
            images = _traversal(model, order, space.categories + offset, seed)
            changes[f"z{2 + offset}"] = change = _change(images)
            axes = panels[row, column]
            draw_images(
                axes,
                images.flatten(0, 1),
                _STEPS,
                model.dataset,
                column_names=["−1", *[""] * (_STEPS - 2), "1"],
                row_names=category_names(model) if column == 0 else (),
            )
            letter = "abcdef"[3 * row + column]
            title(axes, f"({letter}) {name}, {variable} ({kind})", f"moves a pixel by {change:.3f}")
        numbers[name] = {CHANGE: changes} | facts(model)
    right = labels_right(models[1])
    numbers["informative"]["labels right"] = right
    numbers["differing besides lambda"] = differences(*models)
    footer(
        figure,
        "each variable goes from −1 to 1, which is all of a code's prior and 68% of the noise's; "
        "“moves a pixel by”: mean change of a pixel in [−1, 1]",
        f"beside the rows of (d): the label of their category, right for {right:.0%} of training images",
        caption(*models),
    )
    return Drawing(figure, numbers)


@torch.no_grad()
def _traversal(model: TrainedModel, order: list[int], variable: int, seed: int) -> Tensor:
    """Samples (categories, steps, 1, height, width) while one latent goes from −1 to 1."""
    space = model.configuration.latent_space
    latents = space.draw(len(order), stream(seed, "figure 4"))
    latents[:, : space.categories] = torch.eye(space.categories)[order]
    latents = latents.repeat_interleave(_STEPS, dim=0)
    latents[:, variable] = torch.linspace(-1, 1, _STEPS).repeat(len(order))
    samples: Tensor = model.networks.sampling_generator(latents)
    return samples.reshape(len(order), _STEPS, *samples.shape[1:])


def _change(images: Tensor) -> float:
    """Mean over rows and pixels of |G(z) at 1 − G(z) at −1|, pixels in [−1, 1]."""
    return float((images[:, -1] - images[:, 0]).abs().mean())
