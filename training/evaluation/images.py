"""Measures of images: agreement with the label asked for, quality, and what the style codes mean."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .agreement import label_agreement
from .inception import inception_distance
from .morphology import Morphometrics, why_no_strokes
from .quality import frechet_distance, manifold_coverage
from .styles import SWEEPS, StyleMeasurement, digit_constancy, measure_styles, unnamed_styles, variation_ratio
from .subject import BATCH, Findings, Subject

_NEIGHBOURS = 5
_MANIFOLD_SAMPLES = 10_000  # distances between all pairs


def agreement(subject: Subject, findings: Findings) -> None:
    """Samples asked for by label, as a server draws them, and real images of the split in their place."""
    if subject.classifier is None:
        return
    dataset = subject.model.dataset
    found = label_agreement(
        subject.generate,
        subject.model.configuration.latent_space,
        subject.model.categories,
        subject.classifier,
        math.ceil(subject.options.samples / len(dataset.label_names)),
        subject.random("agreement"),
    )
    findings.by_label = dict(found.by_label)
    findings.confusion = found.seen.tolist()
    for category, share in zip(findings.categories, found.by_category, strict=True):
        if math.isfinite(share):
            category["agreement"] = share
    findings.counted("agreement", generated_samples=int(found.seen.sum()))
    real = _real_agreement(subject)
    findings.measured(
        "agreement",
        {"mean": found.mean, "worst": found.worst},
        {"mean": float(real.mean()), "worst": float(real.min())},
    )


@torch.no_grad()
def quality(subject: Subject, findings: Findings) -> None:
    """Distances in the classifier's feature space, and training images in the generated ones' place.

    The classifier was trained on those too, and parts them from images that it never saw: they are what a generator
    that copies the training data scores, no neutral floor.
    """
    if subject.classifier is None:
        return
    count = len(subject.real)
    if count <= _NEIGHBOURS:
        findings.notes.append(
            f"The split's {count} images are too few to compare with: more than {_NEIGHBOURS} are needed."
        )
        return
    real, generated, training = (
        subject.classifier.features(images[:count]) for images in (subject.real, subject.generated, subject.training)
    )
    found, reference = (
        {
            "frechet_distance": frechet_distance(features, real),
            **manifold_coverage(
                real[:_MANIFOLD_SAMPLES], features[:_MANIFOLD_SAMPLES], neighbours=_NEIGHBOURS
            )._asdict(),
        }
        for features in (generated, training)
    )
    dimension = real.shape[1]
    if count <= dimension:
        findings.notes.append(
            f"The Fréchet distance is of {count} images, whose covariance in {dimension} features is singular: "
            f"more than {dimension} are needed for a number that means something."
        )
    findings.counted(
        "quality",
        generated_samples=count,
        real_samples=count,
        manifold_samples=min(count, _MANIFOLD_SAMPLES),
    )
    findings.measured("quality", found, reference)


def inception(subject: Subject, findings: Findings) -> None:
    """The Fréchet distance in Inception's feature space, where its weights were given."""
    weights, frame, count = subject.options.inception_weights, subject.model.dataset.frame, len(subject.real)
    if weights is None or frame is None:
        return
    real, generated, training = (
        frame.native(images) for images in (subject.real, subject.generated[:count], subject.training)
    )
    findings.counted("quality", generated_for_inception=len(generated), real_for_inception=len(real))
    findings.measured(
        "quality",
        {"inception_distance": inception_distance(real, generated, weights)},
        {"inception_distance": inception_distance(real, training, weights)},
    )


def styles(subject: Subject, findings: Findings) -> None:
    """What each style code does to the strokes, where the real images are strokes, and what it leaves alone."""
    latent_space, random = subject.model.configuration.latent_space, subject.random("styles")
    if not latent_space.styles:
        return
    if len(subject.latents) <= latent_space.informative + 1:
        findings.notes.append(f"{len(subject.latents)} samples are too few to tell the style codes apart.")
        return
    for index, style in enumerate(_shapes(subject, findings)):
        found: dict[str, Any] = {
            "name": style.name,
            "meaning": style.meaning,
            "correlation": style.correlation,
            "partial_correlation": style.partial_correlation,
        }
        if subject.classifier is not None:
            found["constancy"] = digit_constancy(subject.generate, latent_space, subject.classifier, index, random)
        if (ratio := variation_ratio(subject.generate, latent_space, index, random)) is not None:
            found["variation_ratio"] = ratio
        findings.styles.append(found)
    findings.counted("style", generated_samples=len(subject.latents), sweeps_of_each=SWEEPS)
    for name in Morphometrics._fields:
        if values := [abs(style["partial_correlation"][name]) for style in findings.styles if style["correlation"]]:
            findings.measured("style", {name: max(values)})
    for name in ("constancy", "variation_ratio"):
        if values := [style[name] for style in findings.styles if name in style]:
            findings.measured("style", {name: sum(values) / len(values)})


def _shapes(subject: Subject, findings: Findings) -> list[StyleMeasurement]:
    """What each style code does to the shape of strokes; nothing where the real images are none."""
    latent_space = subject.model.configuration.latent_space
    if (reason := why_no_strokes(subject.real)) is None:
        return measure_styles(subject.generated, subject.latents, latent_space)
    findings.notes.append(
        "The style codes are neither compared with slant, width, height and ink nor named by them: these are measured "
        f"on bright strokes on a dark ground, and the real images are none, as {reason}."
    )
    return unnamed_styles(latent_space)


def _real_agreement(subject: Subject) -> Tensor:
    """The classifier's accuracy on the real images of each label, (labels present,)."""
    labels = len(subject.model.dataset.label_names)
    right, all_ = torch.zeros(labels), torch.zeros(labels)
    for images, label in subject.model.dataset.batches(subject.options.split, BATCH):
        if subject.classifier is not None and label is not None:
            seen = subject.classifier.probabilities(images).argmax(dim=1)
            right += torch.bincount(label[seen == label], minlength=labels)
            all_ += torch.bincount(label, minlength=labels)
    return right[all_ > 0] / all_[all_ > 0]
