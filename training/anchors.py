"""A few labelled samples that tie categories to names while training, and what their labels reach."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration import Configuration, ConfigurationError
from .datasets import Dataset

_BATCH = 1000
_NEIGHBOURS = 5
_SPREAD = 0.99
_SMALLEST = 1e-30


class Anchors(NamedTuple):
    """Labelled training samples, and others beside them whose labels are not looked at; label i names category i."""

    samples: Tensor  # (count + beside, ...), the labelled ones first
    labels: Tensor  # (count,) int64


def require_anchors(settings: Configuration, dataset: Dataset) -> None:
    """Checks that a data set can give the anchors that the settings ask for.

    Raises:
        ConfigurationError: it has no labels, not as many as there are categories, or too few samples of one.
    """
    per_label, label_names = settings.anchor_labels, dataset.label_names
    if not per_label:
        return
    if not label_names:
        raise ConfigurationError(f"--anchor-labels needs labels, and {dataset.name} has none: use --anchor-labels 0")
    if len(label_names) != settings.categories:
        raise ConfigurationError(
            f"--anchor-labels names {settings.categories} categories by {len(label_names)} labels: "
            f"use --categories {len(label_names)}, or --anchor-labels 0"
        )
    counts = torch.bincount(_labels(dataset), minlength=len(label_names))
    if int(counts.min()) < per_label:
        raise ConfigurationError(
            f"--anchor-labels is {per_label}, and the training data has {int(counts.min())} of "
            f"{label_names[int(counts.argmin())]}: use at most that"
        )
    if settings.anchored_samples > int(counts.sum()):
        beside = settings.anchored_samples - per_label * settings.categories
        others = int(counts.sum()) - per_label * settings.categories
        raise ConfigurationError(
            f"--merge-samples is {beside}, and the training data has {others} samples beside the anchors: "
            "use at most that"
        )


def draw_anchors(dataset: Dataset, per_label: int, count: int, random: torch.Generator) -> Anchors:
    """Draws as many training samples of each label and others beside them, without replacement.

    Args:
        dataset: with labels, see require_anchors.
        per_label: how many of each.
        count: of all samples, the anchors included.
        random: on the CPU.

    Returns:
        The anchors, on the dataset's device, sorted by label.
    """
    labels = _labels(dataset)
    order = torch.randperm(len(labels), generator=random)
    anchors = torch.cat([order[labels[order] == label][:per_label] for label in range(len(dataset.label_names))])
    chosen = torch.cat([anchors, order[~torch.isin(order, anchors)]])[:count]
    found: dict[int, Tensor] = {}
    start = 0
    for samples, _ in dataset.batches("training", _BATCH):
        inside = chosen[(chosen >= start) & (chosen < start + len(samples))]
        found |= {int(index): samples[int(index) - start] for index in inside}
        start += len(samples)
    samples = torch.stack([found[int(index)] for index in chosen])
    return Anchors(samples, labels[anchors].to(samples.device))


def known_labels(anchors: Anchors, categories: int) -> Tensor:
    """What is known before labels spread: (n, categories) float32, a unit vector for each labelled sample, else 0."""
    given = F.one_hot(anchors.labels, categories).float()
    return torch.cat([given, given.new_zeros(len(anchors.samples) - len(given), categories)])


@torch.no_grad()
def spread_labels(features: Tensor, known: Tensor) -> Tensor:
    """Labels for samples that have none, from those that have one through what lies between them.

    Labels spread over the graph W of each sample's 5 nearest neighbours in angle (Zhou et al. 2004),

        F = (I − a D^-½ W D^-½)⁻¹ Y,   a = 0.99,

    and each label's column counts alike. A sample takes the label of its largest F, with the weight 1 − H(F_i) / log K,
    H the entropy of its row: as far as F is sure of it (Iscen et al. 2019).

    Args:
        features: (n, features), n at least 6.
        known: Y, (n, K), a unit vector for each sample that has a label and 0 for the others.

    Returns:
        Weight times the label's unit vector, (n, K) float32; Y's own rows where it has any.
    """
    directions = F.normalize(features.float(), dim=1)
    similarity = (directions @ directions.T).fill_diagonal_(-math.inf)
    nearest = similarity.topk(_NEIGHBOURS, dim=1).indices
    graph = torch.zeros_like(similarity).scatter_(1, nearest, 1.0).double()
    graph = (graph + graph.T) / 2
    root = graph.sum(dim=1).rsqrt()
    system = torch.eye(len(graph)).to(graph) - _SPREAD * root[:, None] * graph * root
    reached = torch.linalg.solve(system, known.double()).clamp_min(_SMALLEST)
    law = reached / reached.sum(dim=0)
    law = law / law.sum(dim=1, keepdim=True)
    weight = 1 + torch.xlogy(law, law).sum(dim=1) / math.log(known.shape[1])
    found = F.one_hot(law.argmax(dim=1), known.shape[1]) * weight[:, None]
    return torch.where(known.any(dim=1, keepdim=True), known, found.float())


def _labels(dataset: Dataset) -> Tensor:
    """Of all training samples, on the CPU."""
    return torch.cat([labels.cpu() for _, labels in dataset.batches("training", _BATCH) if labels is not None])
