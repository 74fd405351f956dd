"""evaluation.json: what was measured on one run, and files written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configuration import Configuration, ConfigurationError
from ..replacement import replace_file
from .measures import BY_NAME

FORMAT = "infosink-evaluation-1"
FILE_NAME = "evaluation.json"


class EvaluationError(Exception):
    """An evaluation that cannot be made or read; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured on one run: the contents of evaluation.json. What does not apply is absent, never NaN.

    Attributes:
        checkpoint_sha256: of the checkpoint that was measured.
        run: the configuration by its names in config.json, and the checkpoint's "iteration".
        data: what the data is, see Dataset.describe: its sizes, and for points their centres and σ.
        split: whose real samples were used, "test" or "validation".
        samples: how many were generated for each measure that is not of fixed size.
        seed: of everything random in the evaluation.
        classifier: "sha256" and "test_accuracy" of the independent classifier; None without labelled images.
        inception_sha256: of the file of Inception's weights; None where none was given.
        counts: by the group of measures, how many of what they are of: "generated_samples", "minibatches" and so on.
        measures: values by the names of `measures.MEASURES`.
        reference: the same of real samples in the generated ones' place, where that means something.
        by_label: each label's agreement.
        confusion: samples by label asked for (rows) and label seen (columns).
        categories: for each "label", "label_share", "share" of the training data, "recovery" and "agreement".
        styles: for each code "name", "meaning", "correlation" and "partial_correlation" by morphometric,
            "constancy" and "variation_ratio".
        notes: why measures are missing or to be read with care, in sentences.
        environment: the versions, the machine type and the number of threads that the numbers depend on; no date, so
            that the same evaluation gives the same file.
        baseline: "run", "checkpoint_sha256", "measures" and "styles" of the run it is compared with; None without one.
    """

    checkpoint_sha256: str
    run: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    split: str
    samples: int
    seed: int
    classifier: dict[str, Any] | None = None
    inception_sha256: str | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    measures: dict[str, float]
    reference: dict[str, float] = field(default_factory=dict)
    by_label: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    styles: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str]
    baseline: dict[str, Any] | None = None

    def to_json(self) -> str:
        """The text of evaluation.json."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"


def read_evaluation(run: Path) -> Evaluation:
    """Reads a run's evaluation.json.

    Raises:
        EvaluationError: there is none, or it is damaged or of another format.
    """
    path = run / FILE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationError(f"{run} has no {FILE_NAME}: make it with infosink-evaluate") from error
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is damaged: it is no JSON; make it again with infosink-evaluate") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise EvaluationError(f"{path} is not of the format {FORMAT}: make it again with infosink-evaluate")
    try:
        evaluation = Evaluation(**values)
        _check(evaluation)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{path} is damaged: {error}; make it again with infosink-evaluate") from error
    return evaluation


def _check(evaluation: Evaluation) -> None:
    """Refuses values of a wrong type, so that whoever reads an evaluation can rely on it."""
    optional = {"classifier", "inception_sha256", "baseline"}
    kinds = {"checkpoint_sha256": str, "inception_sha256": str, "split": str, "samples": int, "seed": int}
    lists = {"confusion", "categories", "styles", "notes"}
    for attribute in dataclasses.fields(evaluation):
        value = getattr(evaluation, attribute.name)
        if value is not None or attribute.name not in optional:
            kind = kinds.get(attribute.name, list if attribute.name in lists else dict)
            _require(_is(value, kind), f"its {attribute.name} is no {kind.__name__}")
    _check_run(evaluation.run)
    for name, size in evaluation.data.items():
        _require(not name.endswith("_samples") or _is(size, int), f"the {name} of its data is no int")
    if evaluation.classifier is not None:
        _require(_is(evaluation.classifier.get("sha256"), str), "the sha256 of its classifier is no str")
        _check_share(evaluation.classifier.get("test_accuracy"), "a test_accuracy")
    for group, counts in evaluation.counts.items():
        numbers = _is(counts, dict) and all(_is(count, int) for count in counts.values())
        _require(numbers, f"its counts of {group} are no ints")
    _check_measures(evaluation.measures)
    _check_measures(evaluation.reference)
    for share in evaluation.by_label.values():
        _check_share(share, "an agreement")
    rows = all(_is(row, list) and len(row) == len(evaluation.confusion) for row in evaluation.confusion)
    counted = rows and all(_is(count, int) for row in evaluation.confusion for count in row)
    _require(counted, "its confusion is no square table of ints")
    for category in evaluation.categories:
        _require(_is(category, dict), "a category is no object")
        _require(_is(category.get("label"), str), "the label of a category is no str")
        for name in ("label_share", "share", "recovery", "agreement"):
            _check_share(category.get(name, 0), "an agreement" if name == "agreement" else f"a {name}")
    _check_styles(evaluation.styles)
    _require(all(_is(note, str) for note in evaluation.notes), "a note is no str")
    _require(all(_is(value, str) for value in evaluation.environment.values()), "its environment is no words")
    if evaluation.baseline is not None:
        _check_baseline(evaluation.baseline)


def _check_baseline(baseline: dict[str, Any]) -> None:
    for name, kind in {"run": dict, "checkpoint_sha256": str, "measures": dict, "styles": list}.items():
        _require(_is(baseline.get(name), kind), f"the {name} of its baseline is no {kind.__name__}")
    _check_run(baseline["run"])
    _check_measures(baseline["measures"])
    _check_styles(baseline["styles"])


def _check_run(run: dict[str, Any]) -> None:
    _require(_is(run.get("iteration"), int), "the iteration of its run is no int")
    try:
        Configuration.from_mapping({name: value for name, value in run.items() if name != "iteration"})
    except ConfigurationError as error:
        raise ValueError(f"its run has no such settings: {error}") from error


def _check_measures(measures: dict[str, Any]) -> None:
    for name, value in measures.items():
        _require(name in BY_NAME, f"it has an unknown measure {name!r}")
        _require(_is_finite(value), f"its measure {name} is no finite number")


def _check_styles(styles: list[Any]) -> None:
    for style in styles:
        _require(_is(style, dict), "a style is no object")
        for name in ("name", "meaning"):
            _require(_is(style.get(name), str), f"the {name} of a style is no str")
        for name in ("correlation", "partial_correlation"):
            found = style.get(name)
            # Tables have the quantities of the first style in their heading.
            numbers = _is(found, dict) and found.keys() == styles[0]["correlation"].keys()
            _require(numbers and all(map(_is_finite, found.values())), f"the {name} of a style is no numbers")
        for name in ("constancy", "variation_ratio"):
            _require(_is_finite(style.get(name, 0)), f"the {name} of a style is no finite number")


def _check_share(value: object, what: str) -> None:
    _require(_is_finite(value) and 0 <= value <= 1, f"{what} is not in [0, 1]")  # type: ignore[operator]


def _is(value: object, kind: type) -> bool:
    """Whether a value of JSON is of a kind; true and false are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    """Whether it is a number that a float can hold: JSON has integers that no float can."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Writes files in the order given, each by replace_file.

    It is done in a moment, and Ctrl-C does not come between two of them.

    Raises:
        EvaluationError: one cannot be written; it is then as it was.
    """
    with _uninterrupted():
        for name, contents in files.items():
            path = directory / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, contents)
            except OSError as error:
                raise EvaluationError(
                    f"cannot write {path}: {error.strerror}; make room, or make its folder writable"
                ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Within, Ctrl-C has no effect; it never has one in other threads than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
