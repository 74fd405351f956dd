"""What one evaluation looks at, the model's samples beside real ones, and what it finds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import Dataset, Split
from ..randomness import stream
from ..trained_model import TrainedModel
from .classifier import IndependentClassifier
from .measures import BY_NAME

BATCH = 1000


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        split: whose real samples are used: "test" or "validation".
        samples: how many to generate for each measure that is not of fixed size.
        seed: of everything random.
        inception_weights: of Inception v3, for its Fréchet distance; None to leave that out.
    """

    split: Split = "test"
    samples: int = 10_000
    seed: int = 0
    inception_weights: Path | None = None

    @cached_property
    def inception_sha256(self) -> str | None:
        """Of the file of weights, in hexadecimal; None without one."""
        return (
            None if self.inception_weights is None else hashlib.sha256(self.inception_weights.read_bytes()).hexdigest()
        )


@dataclass(frozen=True)
class Subject:
    """A model's samples beside real ones.

    Attributes:
        model: being evaluated.
        options: of the evaluation.
        classifier: the independent one; None where there are no labelled images.
        generate: latents (n, dimension) to samples.
        latents: drawn from the prior, (samples, dimension).
        generated: their samples.
        real: of the split, as many as were generated, or as the split or the training data has, if that is fewer; drawn
            without replacement.
        training: of the training data, as many as there are real ones: they stand for a generator that copies them.
    """

    model: TrainedModel
    options: Options
    classifier: IndependentClassifier | None
    generate: Callable[[Tensor], Tensor]
    latents: Tensor
    generated: Tensor
    real: Tensor
    training: Tensor

    def random(self, purpose: str) -> torch.Generator:
        """A stream of random numbers of its own for each purpose."""
        return stream(self.options.seed, f"evaluation: {purpose}")


def prepare(model: TrainedModel, options: Options, classifier: IndependentClassifier | None) -> Subject:
    """Draws all that several measures share.

    Raises:
        DatasetError: the run has no such split.
    """
    generator = model.networks.sampling_generator

    @torch.no_grad()
    def generate(latents: Tensor) -> Tensor:
        return torch.cat([generator(batch) for batch in torch.split(latents, BATCH)])

    latents = model.configuration.latent_space.draw(options.samples, stream(options.seed, "evaluation: samples"))
    real, training = (
        draw_real(model.dataset, split, options.samples, stream(options.seed, f"evaluation: {purpose}"))
        for split, purpose in ((options.split, "real samples"), ("training", "training samples"))
    )
    count = min(len(real), len(training))
    return Subject(model, options, classifier, generate, latents, generate(latents), real[:count], training[:count])


def draw_real(dataset: Dataset, split: Split, count: int, random: torch.Generator) -> Tensor:
    """Draws samples of a split without replacement, in random order; all of them where there are no more."""
    available = sum(len(samples) for samples, _ in dataset.batches(split, BATCH))
    chosen = torch.zeros(available, dtype=torch.bool)
    chosen[torch.randperm(available, generator=random)[:count]] = True
    batches = zip(dataset.batches(split, BATCH), torch.split(chosen, BATCH), strict=True)
    drawn = torch.cat([samples[kept] for (samples, _), kept in batches])
    return drawn[torch.randperm(len(drawn), generator=random)]


@dataclass
class Findings:
    """What has been found so far; see `record.Evaluation` for each."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    reference: dict[str, float] = field(default_factory=dict)
    by_label: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    styles: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counted(self, group: str, **counts: int) -> None:
        """Adds how many of what the measures of a group are of."""
        self.counts.setdefault(group, {}).update(counts)

    def measured(self, group: str, values: dict[str, float], reference: dict[str, float] | None = None) -> None:
        """Adds the values of a group; one that is not finite is left out and noted."""
        for target, found in ((self.measures, values), (self.reference, reference or {})):
            for name, value in found.items():
                measure = BY_NAME[f"{group}.{name}"]
                if math.isfinite(value):
                    target[measure.name] = float(value)
                elif target is self.measures:
                    self.notes.append(f"The {measure.title} is undefined here.")
