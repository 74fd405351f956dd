"""Whether samples show the label they were asked for: the headline number of a model with labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..labelling import NamedCategory
from ..latent import LatentSpace
from .classifier import IndependentClassifier


class LabelAgreement(NamedTuple):
    """What the independent classifier saw in samples asked for by label. All shares are in [0, 1]."""

    mean: float  # of by_label, over all labels of the data
    worst: float
    worst_label: str  # the first of those that are worst
    by_label: dict[str, float]  # P(label seen = label asked for); 0 for a label that no category bears
    by_category: list[float]  # P(label seen = the category's label); NaN for a category that bears no label
    seen: Tensor  # counts (labels asked for, labels seen) int64; a row of zeros for a label that no category bears


def label_agreement(
    generate: Callable[[Tensor], Tensor],
    latent_space: LatentSpace,
    categories: list[NamedCategory],
    classifier: IndependentClassifier,
    samples_per_label: int,
    random: torch.Generator,
) -> LabelAgreement:
    """Asks for every label, and lets the classifier say what came.

        by_label[l] = mean over the categories k that bear l of P(classifier(G(z)) = l | z1 has category k)

    This is what a user of the server gets, which draws the category uniformly from those that bear
    the label, and everything else from the prior. Here each such category has the same number of samples, up to
    one: the same expectation with less variance.

    Args:
        generate: latents (n, dimension) -> samples.
        latent_space: of the generator.
        categories: what each came to mean.
        classifier: the judge.
        samples_per_label: how many to ask for; at least one for each category is drawn.
        random: for the latents, on the CPU.
    """
    labels = classifier.label_names
    by_category = [math.nan] * latent_space.categories
    by_label = dict.fromkeys(labels, 0.0)
    seen = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    for row, label in enumerate(labels):
        bearing = torch.tensor([index for index, category in enumerate(categories) if category.label == label])
        if not len(bearing):
            continue
        category = bearing[torch.arange(max(samples_per_label, len(bearing))) % len(bearing)]
        latents = latent_space.draw(len(category), random)
        latents[:, : latent_space.categories] = F.one_hot(category, latent_space.categories)
        shown = classifier.probabilities(generate(latents)).argmax(dim=1)
        seen[row] = torch.bincount(shown, minlength=len(labels))
        shares = [float((shown[category == index] == row).double().mean()) for index in bearing]
        for index, share in zip(bearing.tolist(), shares, strict=True):
            by_category[index] = share
        by_label[label] = math.fsum(shares) / len(shares)
    worst_label = min(labels, key=by_label.__getitem__)
    return LabelAgreement(
        mean=math.fsum(by_label.values()) / len(labels),
        worst=by_label[worst_label],
        worst_label=worst_label,
        by_label=by_label,
        by_category=by_category,
        seen=seen,
    )
