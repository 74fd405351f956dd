"""A few labelled samples that tie categories to names while training."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration import Configuration, ConfigurationError
from .datasets import Dataset

_BATCH = 1000
_SPREAD = 0.9


class Anchors(NamedTuple):
    """Labelled training samples; label i names category i."""

    samples: Tensor  # (count, ...)
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


def draw_anchors(dataset: Dataset, per_label: int, random: torch.Generator) -> Anchors:
    """Draws as many training samples of each label, without replacement.

    Args:
        dataset: with labels, see require_anchors.
        per_label: how many of each.
        random: on the CPU.

    Returns:
        The anchors, on the dataset's device, sorted by label.
    """
    labels = _labels(dataset)
    order = torch.randperm(len(labels), generator=random)
    chosen = torch.cat([order[labels[order] == label][:per_label] for label in range(len(dataset.label_names))])
    found: dict[int, Tensor] = {}
    start = 0
    for samples, _ in dataset.batches("training", _BATCH):
        inside = chosen[(chosen >= start) & (chosen < start + len(samples))]
        found |= {int(index): samples[int(index) - start] for index in inside}
        start += len(samples)
    samples = torch.stack([found[int(index)] for index in chosen])
    return Anchors(samples, labels[chosen].to(samples.device))


def label_clusters(joint: Tensor, anchored: Tensor) -> Tensor:
    """Gives every cluster the label that most reaches it from anchored clusters.

    Labels spread over the clusters as over a graph (Zhou et al. 2004),

        F = (1 − a) (I − a D^-½ P D^-½)⁻¹ Y,   a = 0.9,

    with P the joint law of related clusters and Y the anchors' mass; each label's column counts alike.

    Args:
        joint: P, (clusters, clusters), see cluster_joint.
        anchored: Y, the mass of each label's anchors in each cluster, (clusters, labels).

    Returns:
        The label of each cluster, (clusters,) int64.
    """
    joint, anchored = joint.double(), anchored.double()
    root = joint.sum(dim=1).clamp_min(1e-12).rsqrt()
    graph = root[:, None] * (joint + joint.T) / 2 * root[None, :]
    spread: Tensor = torch.linalg.solve(torch.eye(len(joint), dtype=torch.float64) - _SPREAD * graph, anchored)
    return (spread / spread.sum(dim=0).clamp_min(1e-12)).argmax(dim=1)


def anchored_mass(cluster_probability: Tensor, labels: Tensor, count: int) -> Tensor:
    """The mass of each label's anchors in each cluster: (n, clusters), (n,) -> (clusters, count)."""
    mass: Tensor = cluster_probability.T @ F.one_hot(labels, count).to(cluster_probability.dtype)
    return mass


def _labels(dataset: Dataset) -> Tensor:
    """Of all training samples, on the CPU."""
    return torch.cat([labels.cpu() for _, labels in dataset.batches("training", _BATCH) if labels is not None])
