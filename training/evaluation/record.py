"""evaluation.json: what was measured on one run, and files written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        split: whose real samples were used, "test" or "validation".
        samples: how many were generated for each measure that is not of fixed size.
        seed: of everything random in the evaluation.
        classifier: "sha256" and "test_accuracy" of the independent classifier; None without labelled images.
        measures: values by the names of `measures.MEASURES`.
        reference: the same of real samples in the generated ones' place, where that means something.
        by_label: each label's agreement.
        confusion: samples by label asked for (rows) and label seen (columns).
        categories: for each "label", "label_share", "share" of the training data, "recovery" and "agreement".
        styles: for each code "name", "meaning", "correlation" and "partial_correlation" by morphometric,
            "constancy" and "variation_ratio".
        notes: why measures are missing, in sentences.
        environment: the versions and the machine type that the numbers depend on; no date, so that the same
            evaluation gives the same file.
        baseline: "run", "checkpoint_sha256", "measures" and "styles" of the run it is compared with; None without one.
    """

    checkpoint_sha256: str
    run: dict[str, Any]
    split: str
    samples: int
    seed: int
    classifier: dict[str, Any] | None = None
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
    optional = {"classifier", "baseline"}
    kinds = {"checkpoint_sha256": str, "split": str, "samples": int, "seed": int}
    mappings = {"run", "classifier", "measures", "reference", "by_label", "environment", "baseline"}
    for attribute in dataclasses.fields(evaluation):
        value = getattr(evaluation, attribute.name)
        kind = kinds.get(attribute.name, dict if attribute.name in mappings else list)
        if not isinstance(value, kind) and not (value is None and attribute.name in optional):
            raise ValueError(f"its {attribute.name} is no {kind.__name__}")
    for name, value in [*evaluation.measures.items(), *evaluation.reference.items()]:
        if name not in BY_NAME:
            raise ValueError(f"it has an unknown measure {name!r}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"its measure {name} is no finite number")


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Writes files in the order given, each under a temporary name beside it that is then renamed.

    It is done in a moment, and Ctrl-C does not come between two of them.

    Raises:
        EvaluationError: one cannot be written; it is then as it was.
    """
    with _uninterrupted():
        for name, contents in files.items():
            path = directory / name
            temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with temporary.open("wb") as file:
                        file.write(contents)
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
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
