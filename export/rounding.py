"""What storing weights narrow costs: the outputs of rounded networks against those of the networks as trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from infosink.training.code_distribution import CodePosterior, make_code_distribution
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel

from .graphs import pixels_of
from .weights import Weights

_SAMPLES = 1000


@dataclass(frozen=True)
class RoundingLoss:
    """How far outputs move when weights are rounded.

    Attributes:
        weights: how they are stored.
        samples: how many latents from the prior, and how many real samples, it was measured on.
        unit: of the changes of samples: "grey levels" of images' pixels, or "units of the data" of points' coordinates.
        sample_mean, sample_largest: the mean and the largest change of a generated sample's pixel or coordinate.
        category_probability: the largest change of a category's probability, over real samples.
        category_changed: the share of real samples whose most probable category changes.
        style_mean: the largest change of a style's posterior mean, over real samples; 0 without styles.
    """

    weights: Weights
    samples: int
    unit: str
    sample_mean: float
    sample_largest: float
    category_probability: float
    category_changed: float
    style_mean: float

    def to_mapping(self) -> dict[str, Any]:
        """What was found by name, numbers with two significant digits, for JSON."""
        return {
            name: float(f"{value:.1e}") if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def lines(self) -> Iterator[str]:
        """The numbers for a person to read."""
        yield (
            f"Weights stored as {self.weights}. Against float32, over {self.samples:,} samples: generated ones move by "
            f"{self.sample_mean:.2g} {self.unit} on average and {self.sample_largest:.2g} at most; of real ones, "
            f"{self.category_changed:.1%} change category, and a probability moves by {self.category_probability:.2g} "
            "at most"
        )


@torch.no_grad()
def measure_rounding(model: TrainedModel, rounded: Networks, weights: Weights) -> RoundingLoss:
    """Compares rounded networks with a model's own, both in PyTorch.

    Args:
        model: with the networks as trained.
        rounded: see weights.rounded_networks.
        weights: how they are stored.
    """
    random = torch.Generator().manual_seed(1)
    latents = model.configuration.latent_space.draw(_SAMPLES, random)
    before, after = (networks.sampling_generator(latents) for networks in (model.networks, rounded))
    images = model.dataset.frame is not None
    if images:
        before, after = pixels_of(before).float(), pixels_of(after).float()
    moved = (after - before).abs()

    code_distribution = make_code_distribution(model.configuration)
    real = model.dataset.draw(_SAMPLES, random)

    def posterior(networks: Networks) -> CodePosterior:
        return code_distribution.posterior(networks.code_head(networks.trunk(real)))

    exact, approximate = posterior(model.networks), posterior(rounded)
    probability, other_probability = exact.category_probability, approximate.category_probability
    style = (approximate.style_mean - exact.style_mean).abs()
    return RoundingLoss(
        weights=weights,
        samples=_SAMPLES,
        unit="grey levels" if images else "units of the data",
        sample_mean=float(moved.mean()),
        sample_largest=float(moved.max()),
        category_probability=float((other_probability - probability).abs().max()),
        category_changed=float((other_probability.argmax(1) != probability.argmax(1)).float().mean()),
        style_mean=float(style.max()) if style.numel() else 0.0,
    )
