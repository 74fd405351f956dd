"""What narrow weights and narrow computing cost: outputs against those of the networks as trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from infosink.training.code_distribution import CodePosterior, make_code_distribution
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto
from torch import Tensor

from .graph_runner import GraphRunner, generator_inputs
from .graphs import pixels_of
from .quantisation import Precision
from .weights import Weights

_SAMPLES = 1000
_CHECKED = 128
"""Of these, how many are computed at every batch size."""


@dataclass(frozen=True)
class RoundingLoss:
    """How far outputs move when weights are stored narrow, or large layers compute in fewer bits.

    Attributes:
        weights: how they are stored.
        precision: what large layers compute in.
        samples: how many latents from the prior, and how many real samples, it was measured on.
        unit: of the changes of samples: "grey levels" of images' pixels, or "units of the data" of points' coordinates.
        sample_mean, sample_largest: the mean and the largest change of a generated sample's pixel or coordinate.
        category_probability: the largest change of a category's probability, over real samples.
        category_changed: the share of real samples whose most probable category changes.
        style_mean: the largest change of a style's posterior mean, over real samples; 0 without styles.
    """

    weights: Weights
    precision: Precision
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
        computed = "" if self.precision == "float32" else f"Large layers compute in {self.precision}. "
        yield (
            f"{computed}Weights stored as {self.weights}. Against float32, over {self.samples:,} samples: generated "
            f"ones move by {self.sample_mean:.2g} {self.unit} on average, {self.sample_largest:.2g} at most; of real "
            f"ones, {self.category_changed:.1%} change category, and a probability moves by "
            f"{self.category_probability:.2g} "
            "at most"
        )


def measure_rounding(model: TrainedModel, rounded: Networks, weights: Weights) -> RoundingLoss:
    """Compares rounded networks with a model's own, both in PyTorch.

    Args:
        model: with the networks as trained.
        rounded: see weights.rounded_networks.
        weights: how they are stored.
    """
    posterior = _posterior(model, rounded)
    return _measure(model, rounded.sampling_generator, posterior, weights=weights, precision="float32")


def measure_graphs(
    model: TrainedModel, generator: ModelProto, encoder: ModelProto, weights: Weights, precision: Precision
) -> RoundingLoss:
    """Compares graphs in onnxruntime with a model's networks in PyTorch.

    Args:
        model: with the networks as trained.
        generator: see graphs.generator_graph.
        encoder: see graphs.encoder_graph.
        weights: how they store them.
        precision: what their large layers compute in.

    Raises:
        ExportError: a row alone differs from the same row inside a batch.
    """
    runs = GraphRunner("gen.onnx", generator), GraphRunner("q.onnx", encoder)
    latent_space = model.configuration.latent_space

    def generated(latents: Tensor) -> Tensor:
        inputs = generator_inputs(latents, latent_space)
        runs[0].checked({name: value[:_CHECKED] for name, value in inputs.items()})
        return torch.from_numpy(runs[0].run(inputs)["sample"])

    def posterior(real: Tensor) -> CodePosterior:
        runs[1].checked({"sample": real[:_CHECKED].numpy()})
        outputs = runs[1].run({"sample": real.numpy()})
        return CodePosterior(*(torch.from_numpy(outputs[name]) for name in CodePosterior._fields))

    return _measure(model, generated, posterior, weights=weights, precision=precision)


def _posterior(model: TrainedModel, networks: Networks) -> Callable[[Tensor], CodePosterior]:
    code_distribution = make_code_distribution(model.configuration)
    return lambda real: code_distribution.posterior(networks.code_head(networks.trunk(real)))


@torch.no_grad()
def _measure(
    model: TrainedModel,
    generated: Callable[[Tensor], Tensor],
    posterior: Callable[[Tensor], CodePosterior],
    *,
    weights: Weights,
    precision: Precision,
) -> RoundingLoss:
    random = torch.Generator().manual_seed(1)
    latents = model.configuration.latent_space.draw(_SAMPLES, random)
    before, after = model.networks.sampling_generator(latents), generated(latents)
    images = model.dataset.frame is not None
    if images:
        before, after = pixels_of(before).float(), pixels_of(after).float()
    moved = (after - before).abs()

    real = model.dataset.draw(_SAMPLES, random)
    exact, approximate = _posterior(model, model.networks)(real), posterior(real)
    probability, other_probability = exact.category_probability, approximate.category_probability
    style = (approximate.style_mean - exact.style_mean).abs()
    return RoundingLoss(
        weights=weights,
        precision=precision,
        samples=_SAMPLES,
        unit="grey levels" if images else "units of the data",
        sample_mean=float(moved.mean()),
        sample_largest=float(moved.max()),
        category_probability=float((other_probability - probability).abs().max()),
        category_changed=float((other_probability.argmax(1) != probability.argmax(1)).float().mean()),
        style_mean=float(style.max()) if style.numel() else 0.0,
    )
