"""Measures that images and points share: Q's categories, the code in samples, their spread, and the plan."""

from __future__ import annotations

import torch
from torch import Tensor

from ..code_distribution import make_code_distribution
from ..ground_cost import GROUND_COSTS, GroundCost
from ..labelling import assigned_category
from .clustering import cluster_agreement
from .codes import code_reading
from .plans import measure_plans
from .quality import mean_pairwise_cost
from .subject import BATCH, Findings, Subject

_SPREAD_SAMPLES = 2_000  # the cost of images is 1,024 differences a pair
_PLAN_MINIBATCHES = 5  # each is solved to convergence, which takes seconds


@torch.no_grad()
def clustering(subject: Subject, findings: Findings) -> None:
    """Q's category against the label, over all of the split."""
    if not subject.model.dataset.label_names:
        findings.notes.append(
            "The data has no labels: nothing can be asked for by label or compared with one, and there is no "
            "classifier to judge it."
        )
        return
    categories, labels = [], []
    for samples, label in subject.model.dataset.batches(subject.options.split, BATCH):
        if label is not None:
            categories.append(_category(subject, samples))
            labels.append(label)
    agreement = cluster_agreement(torch.cat(categories), torch.cat(labels))
    findings.counted("clustering", real_samples=sum(map(len, labels)))
    findings.measured("clustering", agreement._asdict())


def codes(subject: Subject, findings: Findings) -> None:
    """What can be read of the code in samples, for each category too."""
    configuration = subject.model.configuration
    count = max(subject.options.samples, configuration.categories)
    reading = code_reading(
        subject.model.networks,
        make_code_distribution(configuration),
        configuration.latent_space,
        count,
        subject.random("codes"),
    )
    findings.counted("codes", generated_samples=count)
    findings.measured("codes", {"information": reading.information, "recovery": reading.recovery})
    for category, recovery in zip(findings.categories, reading.recovery_by_category, strict=True):
        category["recovery"] = recovery


@torch.no_grad()
def spread(subject: Subject, findings: Findings) -> None:
    """The mean pairwise cost, generated over real: whole, and within a category."""
    cost = GROUND_COSTS[subject.model.configuration.ground_cost]
    real, generated, training = (
        samples[_some(len(samples), subject.random("spread"))]
        for samples in (subject.real, subject.generated, subject.training)
    )
    # The same choice as of their samples.
    latents = subject.latents[_some(len(subject.latents), subject.random("spread"))]
    asked = subject.model.configuration.latent_space.category_of(latents)
    if len(real) < 2:
        findings.notes.append("The split has too few samples to compare their spread.")
        return
    whole = mean_pairwise_cost(real, cost)
    within = _within(real, _category(subject, real), cost)
    found, reference = (
        {
            "spread": _ratio(mean_pairwise_cost(samples, cost), whole),
            "spread_within_category": _mean_ratio(_within(samples, category, cost), within),
        }
        for samples, category in ((generated, asked), (training, _category(subject, training)))
    )
    findings.counted("quality", generated_for_spread=len(generated), real_for_spread=len(real))
    findings.measured("quality", found, reference)


def plan(subject: Subject, findings: Findings) -> None:
    """The transport plan's side."""
    measured = measure_plans(subject.model, _PLAN_MINIBATCHES, subject.random("plan"))
    findings.counted("plan", minibatches=_PLAN_MINIBATCHES, samples_each=subject.model.configuration.batch_size)
    findings.measured("plan", measured._asdict())


def _category(subject: Subject, samples: Tensor) -> Tensor:
    networks, categories = subject.model.networks, subject.model.configuration.categories
    return torch.cat([assigned_category(networks, batch, categories) for batch in torch.split(samples, BATCH)])


def _some(available: int, random: torch.Generator) -> Tensor:
    return torch.randperm(available, generator=random)[:_SPREAD_SAMPLES]


def _within(samples: Tensor, category: Tensor, cost: GroundCost) -> dict[int, float]:
    """The mean pairwise cost within each category that has two samples."""
    members = {each: samples[category == each] for each in set(category.tolist())}
    return {each: mean_pairwise_cost(found, cost) for each, found in members.items() if len(found) > 1}


def _ratio(value: float, of: float) -> float:
    return value / of if of else float("nan")


def _mean_ratio(values: dict[int, float], of: dict[int, float]) -> float:
    shared = [_ratio(values[category], of[category]) for category in values.keys() & of.keys()]
    return sum(sorted(shared)) / len(shared) if shared else float("nan")
