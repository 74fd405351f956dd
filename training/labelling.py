"""What each category came to mean: its majority label, and whether the generator heeds it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .datasets import Dataset
from .latent import LatentSpace
from .networks import Networks

_BATCH = 1000
_RECOVERY_SAMPLES = 500


@dataclass(frozen=True)
class NamedCategory:
    """A category and the name it earned.

    Attributes:
        label: the majority label among the training samples Q assigns to it; empty where Q
            assigns it none, and its index where the data has no labels.
        label_share: the share of those samples that bear the label; 0 where there is none.
        sample_share: the share of all training samples that Q assigns to it.
        recovery: P(argmax q(·|G(z)) = category) over samples generated with it.
    """

    label: str
    label_share: float
    sample_share: float
    recovery: float


@torch.no_grad()
def name_categories(
    networks: Networks, dataset: Dataset, latent_space: LatentSpace, random: torch.Generator
) -> list[NamedCategory]:
    """Names every category.

    Args:
        networks: in evaluation mode, see inference_copy.
        dataset: whose training split is read, on the networks' device.
        latent_space: of the networks.
        random: for the generated samples, on the networks' device.
    """
    categories, label_names = latent_space.categories, dataset.label_names
    counts = torch.zeros(categories, max(1, len(label_names)), dtype=torch.int64)
    for samples, labels in dataset.batches("training", _BATCH):
        assigned = assigned_category(networks, samples, categories).cpu()
        column = torch.zeros_like(assigned) if labels is None else labels.cpu()
        counts.index_put_((assigned, column), torch.ones_like(assigned), accumulate=True)
    named = []
    for category in range(categories):
        assigned_count = int(counts[category].sum())
        label, share = "" if label_names else str(category), 0.0
        if label_names and assigned_count:
            majority = int(counts[category].argmax())
            label, share = label_names[majority], int(counts[category, majority]) / assigned_count
        latents = latent_space.draw(_RECOVERY_SAMPLES, random)
        latents[:, :categories] = 0
        latents[:, category] = 1
        recovered = assigned_category(networks, networks.sampling_generator(latents), categories) == category
        named.append(NamedCategory(label, share, assigned_count / int(counts.sum()), float(recovered.float().mean())))
    return named


def unreachable_labels(named: list[NamedCategory], dataset: Dataset) -> list[str]:
    """The labels of the data that no category bears."""
    borne = {category.label for category in named}
    return [label for label in dataset.label_names if label not in borne]


def assigned_category(networks: Networks, samples: torch.Tensor, categories: int) -> torch.Tensor:
    """Argmax of q(·|y) over categories: (batch, ...) -> (batch,) int64."""
    return networks.code_head(networks.trunk(samples))[:, :categories].argmax(dim=1)  # type: ignore[no-any-return]
