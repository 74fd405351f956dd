"""From the command line's words to evaluations on disk."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets import Dataset, DatasetError
from ..run_directory import RunDirectory
from ..trained_model import load_trained_model, reopen_dataset
from .classifier import load_classifier
from .evaluate import Evaluated, Progress, environment, evaluate
from .record import FILE_NAME, Evaluation, EvaluationError, read_evaluation, write_files
from .report import markdown
from .seeds import require_seeds_only
from .subject import Options


@dataclass(frozen=True)
class Request:
    """What the user asked for, of every run alike.

    Attributes:
        options: of the evaluation.
        data_directory: where the data is now, if it has moved.
    """

    options: Options
    data_directory: Path | None = None


def evaluate_run(path: Path, request: Request, progress: Progress, baseline: Path | None = None) -> Evaluation:
    """Evaluates a run, and writes evaluation.json, evaluation.md and evaluation/*.png into it, at the very end.

    Args:
        path: the run directory.
        request: what was asked for.
        progress: told of every stage.
        baseline: another run on the same data, shown beside this one; evaluated first where it has no
            evaluation that is up to date.

    Raises:
        EvaluationError: what was asked for cannot be done, or the files cannot be written.
        RunDirectoryError: the run is damaged, or there is none.
        DatasetError: the data cannot be read.
        ClassifierError: there is no classifier of it.
        InceptionError: the weights are not Inception's.
    """
    run = RunDirectory.open(path)
    if not os.access(path, os.W_OK):
        raise EvaluationError(f"cannot write to {path}, where the evaluation belongs: make it writable")
    if baseline is not None:
        _require_same_data(run, RunDirectory.open(baseline))
    configuration, data = run.read_configuration()
    dataset = reopen_dataset(data, configuration.dataset, request.data_directory)
    _require_possible(dataset, request.options)
    progress("reading the run and naming its categories", 0.0)
    model = load_trained_model(run, dataset=dataset)
    other = None if baseline is None else current_evaluation(baseline, request, progress)
    # With fewer than two labels there is nothing to tell apart.
    labelled = dataset.frame is not None and len(dataset.label_names) > 1
    classifier = load_classifier(dataset, progress) if labelled else None
    evaluated = evaluate(model, request.options, classifier, progress, other)
    _write(path, evaluated)
    return evaluated.evaluation


def current_evaluation(path: Path, request: Request, progress: Progress) -> Evaluation:
    """The evaluation of a run as it is now: the one that lies there where it is up to date, else a new one.

    Up to date is one of the same checkpoint, split, number of samples, seed and versions.

    Raises:
        EvaluationError, RunDirectoryError, DatasetError, ClassifierError: as evaluate_run.
    """
    options = request.options
    with suppress(EvaluationError, OSError):
        found = read_evaluation(path)
        sha256 = hashlib.sha256(RunDirectory.open(path).checkpoint_path.read_bytes()).hexdigest()
        wanted = (sha256, options.split, options.samples, options.seed, environment())
        held = (found.checkpoint_sha256, found.split, found.samples, found.seed, found.environment)
        complete = options.inception_weights is None or "quality.inception_distance" in found.measures
        if held == wanted and complete:
            return found
    return evaluate_run(path, request, progress)


def evaluate_seeds(paths: list[Path], request: Request, progress: Progress) -> list[Evaluation]:
    """The evaluations of runs that differ in their seed only, made where they are missing or out of date.

    Raises:
        EvaluationError: they differ in more; or as evaluate_run.
        RunDirectoryError, DatasetError, ClassifierError: as evaluate_run.
    """
    require_seeds_only(paths, [_facts(path) for path in paths])
    evaluations = []
    for index, path in enumerate(paths, 1):
        evaluations.append(
            current_evaluation(
                path,
                request,
                lambda text, share: progress(f"run {index} of {len(paths)}: {text}", share),  # noqa: B023
            )
        )
    # A run that is still training may have moved on meanwhile.
    require_seeds_only(paths, [evaluation.run for evaluation in evaluations])
    return evaluations


def _facts(path: Path) -> dict[str, Any]:
    """What a run is: its settings, its data and how far it has come."""
    run = RunDirectory.open(path)
    configuration, data = run.read_configuration()
    return configuration.to_mapping() | {
        "data": data.get("facts"),
        "iteration": run.read_checkpoint().header.get("iteration"),
    }


def _require_same_data(run: RunDirectory, baseline: RunDirectory) -> None:
    (_, data), (_, other) = run.read_configuration(), baseline.read_configuration()
    if data.get("facts") != other.get("facts"):
        raise EvaluationError(
            f"{run.path} and {baseline.path} were trained on different data, so that nothing in them can be compared: "
            "name another --baseline"
        )


def _require_possible(dataset: Dataset, options: Options) -> None:
    """Refuses what the data cannot give, before any work is done."""
    try:
        dataset.batches(options.split, 1)
    except DatasetError as error:
        raise EvaluationError(
            f"--split {options.split}: this run held no images out; train one with --hold-out 10000, "
            "or use --split test"
        ) from error
    if options.inception_weights is not None and dataset.frame is None:
        raise EvaluationError(f"--inception-weights: {dataset.name} has points, not images; leave it out")


def _write(path: Path, evaluated: Evaluated) -> None:
    """Writes the pictures first and the record last, so that no record lacks its pictures."""
    report = markdown(evaluated.evaluation, path.resolve().name, evaluated.pictures)
    pictures = {f"evaluation/{picture.name}": picture.png for picture in evaluated.pictures}
    files = {**pictures, "evaluation.md": report.encode(), FILE_NAME: evaluated.evaluation.to_json().encode()}
    write_files(path, files)
