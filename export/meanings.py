"""What the codes came to mean, as the evaluation of the same checkpoint found it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from infosink.training.evaluation.record import FILE_NAME, Evaluation, EvaluationError, read_evaluation
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import Style

_LONGEST_TEXT = 128  # bytes of a style's name or meaning, so that those of all styles stay few


class Meanings(NamedTuple):
    """What the codes of a model mean, beyond the categories' labels."""

    agreement: list[float | None]  # of each category; None where it was not measured
    styles: list[Style]
    evaluation: Evaluation | None = None  # that says so


def plain_meanings(model: TrainedModel) -> Meanings:
    """Of a model that nobody evaluated: styles by their number, "style 1" and so on, and no agreement."""
    styles = [Style(name=f"style {index + 1}") for index in range(model.configuration.styles)]
    return Meanings([None] * model.configuration.categories, styles)


def read_meanings(run: Path, model: TrainedModel) -> Meanings:
    """Reads them from a run's evaluation.json; what it does not measure stays plain.

    A run on points need not have one: of points, it measures nothing that a model file states.

    Args:
        run: the run directory.
        model: that was read from it.

    Raises:
        EvaluationError: there is no evaluation, it is damaged, or it is of another checkpoint.
    """
    if not (run / FILE_NAME).exists():
        if model.dataset.frame is None:
            return plain_meanings(model)
        command = f"infosink-evaluate {shlex.quote(str(run))}"
        raise EvaluationError(f"{run} has not been evaluated; {command} before exporting changes that")
    evaluation = read_evaluation(run)
    if evaluation.checkpoint_sha256 != model.checkpoint_sha256:
        raise EvaluationError(
            f"{run / FILE_NAME} is of another checkpoint than the run's: make it again with infosink-evaluate"
        )
    try:
        agreement, styles = _agreement(evaluation, model), _styles(evaluation, model)
    except ValueError as error:
        raise EvaluationError(f"{run / FILE_NAME} is damaged: {error}; make it again with infosink-evaluate") from error
    return Meanings(agreement, styles, evaluation)


def _agreement(evaluation: Evaluation, model: TrainedModel) -> list[float | None]:
    found = evaluation.categories
    if [category["label"] for category in found] != [category.label for category in model.categories]:
        raise ValueError("its categories are not the model's")
    return [category.get("agreement") for category in found]


def _styles(evaluation: Evaluation, model: TrainedModel) -> list[Style]:
    if not evaluation.styles:  # of points, or of too few samples
        return plain_meanings(model).styles
    if len(evaluation.styles) != model.configuration.styles:
        raise ValueError(f"it has {len(evaluation.styles)} styles, the model {model.configuration.styles}")
    return [
        Style(name=_text(style, "name"), meaning=_text(style, "meaning", empty=True)) for style in evaluation.styles
    ]


def _text(style: dict[str, Any], attribute: str, *, empty: bool = False) -> str:
    """A line that a file and a terminal can take; printable text has no lone surrogate, which is not UTF-8."""
    text: str = style[attribute]
    if not text.isprintable() or len(text.encode()) > _LONGEST_TEXT:
        raise ValueError(f"the {attribute} of a style is not one line of at most {_LONGEST_TEXT} bytes")
    if not text.strip() and not (empty and text == ""):
        raise ValueError(f"the {attribute} of a style is blank")
    return text
