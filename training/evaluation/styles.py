"""What the style codes came to mean, and whether a style leaves the category alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from ..latent import LatentSpace
from .morphology import Morphometrics, morphometrics

Generate = Callable[[Tensor], Tensor]

# Half of full agreement, Cohen's (1988) "large" effect: the least at which an eye that follows a sweep sees the name.
NAMING_CORRELATION = 0.5
# Of each style: what its constancy and its variation are averaged over.
SWEEPS = 200
# Of what a rank varies by: what is left below it is rounding.
_NO_VARIATION = 1e-9
# The 5 % and 95 % quantiles of each variable's own prior.
_STYLE_END = 0.9
_NOISE_END = 1.6448536269514722
_NOISE_VARIABLES = 8


class Judge(Protocol):
    """Anything that classifies images."""

    def probabilities(self, images: Tensor) -> Tensor:
        """(count, channels, height, width) -> (count, labels)."""


class StyleMeasurement(NamedTuple):
    """What one style code does to the shape of a sample, by morphometric."""

    name: str  # the morphometric it earned, else "style 1" and so on
    meaning: str  # "slant, partial rank correlation 0.91", else empty
    correlation: dict[str, float]  # Spearman's; empty where no shape was measured
    partial_correlation: dict[str, float]  # Spearman's, given the other codes


def measure_styles(samples: Tensor, latents: Tensor, latent_space: LatentSpace) -> list[StyleMeasurement]:
    """Correlates every style code with slant, width, height and ink, and names the styles by it.

    Spearman's rank correlation ρ is Pearson's of the ranks, and so blind to any monotone change
    of scale. The partial one is that of the residuals, once a least-squares fit to the category
    (an indicator for each) and to the ranks of the other styles has been taken from the ranks of
    both sides (Iman and Conover 1979): what the style does that no other code does. Where nothing
    is left to vary, it is 0.

    Names are given out by the strongest partial correlation first, each once and to one style;
    one below 0.5 in magnitude gives none.

    Args:
        samples: images G(z), (count, channels, height, width), in [-1, 1].
        latents: z, (count, dimension).
        latent_space: of z.

    Raises:
        ValueError: the samples are no images, not one for each latent, or too few to tell codes apart.
    """
    codes = latent_space.informative
    if len(samples) != len(latents) or len(samples) <= codes + 1:
        raise ValueError(
            f"{len(samples)} samples of {len(latents)} latents cannot tell {codes} codes apart: "
            f"give one for each, and more than {codes + 1}"
        )
    category = latents[:, : latent_space.categories].cpu().double().numpy()
    style = _ranks(latents[:, latent_space.categories : codes])
    shape = _ranks(torch.stack(morphometrics(samples), dim=1))
    correlation, partial = [], []
    for index in range(latent_space.styles):
        others = np.concatenate([category, np.delete(style, index, axis=1)], axis=1)
        correlation.append(_correlations(style[:, index], shape, np.ones((len(shape), 1))))
        partial.append(_correlations(style[:, index], shape, others))
    measured = [
        style._replace(correlation=correlation[index], partial_correlation=partial[index])
        for index, style in enumerate(unnamed_styles(latent_space))
    ]
    for index, name in _names(partial).items():
        meaning = f"{name}, partial rank correlation {partial[index][name]:.2f}"
        measured[index] = measured[index]._replace(name=name, meaning=meaning)
    return measured


def unnamed_styles(latent_space: LatentSpace) -> list[StyleMeasurement]:
    """The styles by their numbers, "style 1" and so on, where no shape can be measured."""
    return [StyleMeasurement(f"style {index + 1}", "", {}, {}) for index in range(latent_space.styles)]


@torch.no_grad()
def digit_constancy(
    generate: Generate,
    latent_space: LatentSpace,
    classifier: Judge,
    style: int,
    random: torch.Generator,
    *,
    sweeps: int = SWEEPS,
    steps: int = 11,
) -> float:
    """The share of a sweep's images whose label, by the classifier, is that of the image in its middle.

    A sweep takes one style from −1 to 1 in equal steps, everything else drawn once from the
    prior. The middle itself is not counted. 1 where the style never changes the digit; whether
    it is the digit asked for is not in question here, see label_agreement.

    Args:
        generate: G, (count, dimension) -> (count, channels, height, width).
        latent_space: of the latents.
        classifier: an IndependentClassifier.
        style: which, from 0.
        random: on the latents' device.
        sweeps: how many.
        steps: of each, odd.

    Raises:
        ValueError: there is no such style or sweep, or it has no middle.
    """
    column = _column(latent_space, style)
    if sweeps < 1 or steps < 3 or steps % 2 == 0:
        raise ValueError(f"{sweeps} sweeps of {steps} steps: ask for 1 or more, of an odd number from 3 on")
    latents = latent_space.draw(sweeps, random).repeat_interleave(steps, dim=0)
    middle = steps // 2
    latents[:, column] = ((torch.arange(steps, device=latents.device) - middle) / middle).repeat(sweeps)
    label = classifier.probabilities(generate(latents)).argmax(dim=1).view(sweeps, steps)
    same = label == label[:, middle, None]
    return (int(same.sum()) - sweeps) / (sweeps * (steps - 1))


@torch.no_grad()
def variation_ratio(
    generate: Generate, latent_space: LatentSpace, style: int, random: torch.Generator, *, sweeps: int = SWEEPS
) -> float | None:
    """How far a sweep of one style moves the sample, over how far a sweep of a noise variable does.

        E |G(z; s = 0.9) − G(z; s = −0.9)|  /  mean over noise variables of E |G(z; t = 1.64) − G(z; t = −1.64)|

    in the l1 ground cost. Each variable goes from the 5 % to the 95 % quantile of its own prior,
    everything else is drawn from the prior and held. Only the ends are compared: the length of
    the path would grow with the number of steps, and count a style that wavers as one that
    moves far. The first 8 noise variables stand for all of them, since nothing tells them apart
    before training.

    Args:
        generate: G, (count, dimension) -> samples (count, ...).
        latent_space: of the latents.
        style: which, from 0.
        random: on the latents' device.
        sweeps: of each variable.

    Returns:
        The ratio; None where no noise variable moves the sample, or there is none: then there
        is nothing to compare with.

    Raises:
        ValueError: there is no such style, or no sweep.
    """
    column = _column(latent_space, style)
    if sweeps < 1:
        raise ValueError(f"{sweeps} sweeps show nothing: ask for 1 or more")
    latents = latent_space.draw(sweeps, random)

    def variation(variable: int, end: float) -> float:
        low, high = latents.clone(), latents.clone()
        low[:, variable], high[:, variable] = -end, end
        return float((generate(high) - generate(low)).abs().double().mean())

    noise = range(latent_space.informative, latent_space.dimension)[:_NOISE_VARIABLES]
    of_noise = [variation(variable, _NOISE_END) for variable in noise]
    return variation(column, _STYLE_END) * len(of_noise) / sum(of_noise) if any(of_noise) else None


def _column(latent_space: LatentSpace, style: int) -> int:
    if not 0 <= style < latent_space.styles:
        raise ValueError(f"there is no style {style}: the latent space has {latent_space.styles}, counted from 0")
    return latent_space.categories + style


def _ranks(values: Tensor) -> NDArray[np.float64]:
    """Ranks within each column, ties averaged, scaled to (0, 1]."""
    ranks: NDArray[np.float64] = rankdata(values.cpu().double().numpy(), axis=0) / len(values)
    return ranks


def _correlations(
    style: NDArray[np.float64], shape: NDArray[np.float64], given: NDArray[np.float64]
) -> dict[str, float]:
    """Correlation of the residuals of `style` (count,) and of each column of `shape`, after a fit to `given`."""
    ranks = np.column_stack([style, shape])
    residual = ranks - given @ np.linalg.lstsq(given, ranks, rcond=None)[0]
    norm = np.linalg.norm(residual, axis=0)
    varies = norm > _NO_VARIATION * np.linalg.norm(ranks, axis=0)
    unit = np.where(varies, residual / np.where(varies, norm, 1.0), 0.0)
    return dict(zip(Morphometrics._fields, (unit[:, 0] @ unit[:, 1:]).tolist(), strict=True))


def _names(partial: list[dict[str, float]]) -> dict[int, str]:
    """Names by style, given out greedily."""
    claims = sorted(
        ((abs(rho), index, name) for index, rhos in enumerate(partial) for name, rho in rhos.items()),
        key=lambda claim: -claim[0],
    )
    names: dict[int, str] = {}
    for strength, index, name in claims:
        if strength >= NAMING_CORRELATION and index not in names and name not in names.values():
            names[index] = name
    return names
