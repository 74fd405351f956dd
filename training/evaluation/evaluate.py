"""From a trained model to an evaluation: every measure in turn."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import torch

from ..trained_model import TrainedModel
from . import distribution, images, pictures, points
from .classifier import FEATURES, IndependentClassifier
from .pictures import Picture
from .record import Evaluation
from .subject import Findings, Options, Subject, prepare

Progress = Callable[[str, float], None]
"""Told what is being done, and which share of all is done before it."""

_Stage = tuple[str, Callable[[Subject, Findings], None]]

_BOTH: list[_Stage] = [
    ("comparing categories with labels", distribution.clustering),
    ("reading codes back from samples", distribution.codes),
    ("solving for transport plans", distribution.plan),
    ("measuring the spread of samples", distribution.spread),
]
# Inception goes first, so that weights of no use are found out before the work is done.
_IMAGES: list[_Stage] = [
    ("comparing images in Inception's features", images.inception),
    *_BOTH,
    ("asking for samples by label", images.agreement),
    ("comparing generated with real images", images.quality),
    ("measuring styles", images.styles),
]
_POINTS: list[_Stage] = [*_BOTH, ("counting modes", points.modes)]


class Evaluated(NamedTuple):
    """An evaluation and its pictures."""

    evaluation: Evaluation
    pictures: list[Picture]


def evaluate(
    model: TrainedModel,
    options: Options,
    classifier: IndependentClassifier | None,
    progress: Progress,
    baseline: Evaluation | None = None,
) -> Evaluated:
    """Measures a model; the same model and options give the same numbers on the same type of machine.

    Args:
        model: in evaluation mode, on the CPU, see load_trained_model.
        options: what was asked for.
        classifier: trained on the same data; None for points and where there are no labels.
        progress: told of every stage.
        baseline: the evaluation of another run on the same data, to show beside this one.

    Raises:
        DatasetError: the run has no such split.
    """
    findings = Findings()
    findings.categories = [
        {
            "label": category.label,
            "label_share": category.label_share,
            "share": category.sample_share,
        }
        for category in model.categories
    ]
    progress("drawing samples", 0.0)
    subject = prepare(model, options, classifier)
    of_images = model.dataset.frame is not None
    if of_images and len(model.dataset.label_names) == 1:
        findings.notes.append(
            "The data has one label only, so that there is no classifier: agreement, label constancy and the distances "
            "in its features were not measured."
        )
    if classifier is not None and len(subject.real) <= FEATURES:
        findings.notes.append(
            f"The Fréchet distance is of {len(subject.real)} real images in {FEATURES} dimensions, where more than "
            f"{FEATURES} are needed for a covariance of full rank: it is biased far upwards."
        )
    stages = _IMAGES if of_images else _POINTS
    for index, (text, measure) in enumerate(stages):
        progress(text, index / (len(stages) + 1))
        measure(subject, findings)
    evaluation = _evaluation(subject, findings, baseline)
    progress("drawing pictures", len(stages) / (len(stages) + 1))
    drawn = list(pictures.of_images(subject, evaluation) if of_images else pictures.of_points(subject))
    progress("done", 1.0)
    return Evaluated(evaluation, drawn)


def environment() -> dict[str, str]:
    """What the numbers of an evaluation depend on besides the model and the options."""
    return {
        "infosink": version("infosink"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "scikit-learn": version("scikit-learn"),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def _evaluation(subject: Subject, findings: Findings, baseline: Evaluation | None) -> Evaluation:
    model, options, classifier = subject.model, subject.options, subject.classifier
    return Evaluation(
        checkpoint_sha256=model.checkpoint_sha256,
        run=model.configuration.to_mapping() | {"iteration": model.iteration},
        # As JSON gives it back, which has no tuples.
        data=json.loads(json.dumps(model.dataset.describe())),
        split=options.split,
        samples=options.samples,
        seed=options.seed,
        classifier=None
        if classifier is None
        else {"sha256": classifier.sha256, "test_accuracy": classifier.test_accuracy},
        inception_sha256=options.inception_sha256,
        counts=findings.counts,
        measures=findings.measures,
        reference=findings.reference,
        by_label=findings.by_label,
        confusion=findings.confusion,
        categories=findings.categories,
        styles=findings.styles,
        notes=findings.notes,
        environment=environment(),
        baseline=None
        if baseline is None
        else {
            "run": baseline.run,
            "checkpoint_sha256": baseline.checkpoint_sha256,
            "measures": baseline.measures,
            "styles": baseline.styles,
        },
    )
