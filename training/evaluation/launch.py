"""From the command line's words to evaluations on disk."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets import Dataset, DatasetError
from ..run_directory import RunDirectory
from ..trained_model import load_trained_model, reopen_dataset
from .classifier import IndependentClassifier, load_classifier
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


@dataclass(frozen=True)
class _Ground:
    """What runs on the same data are all measured by: the data, and the one classifier that judges them."""

    options: Options
    dataset: Dataset
    classifier: IndependentClassifier | None


def evaluate_run(path: Path, request: Request, progress: Progress, baseline: Path | None = None) -> Evaluation:
    """Evaluates a run, and writes evaluation.json, evaluation.md and evaluation/*.png into it, at the very end.

    Args:
        path: the run directory.
        request: what was asked for.
        progress: told of every stage.
        baseline: another run on the same data, shown beside this one; evaluated first where it has no
            evaluation that is up to date.

    Raises:
        EvaluationError: what was asked for cannot be done, or the files cannot be written; or the baseline has an
            evaluation that was made with other options.
        RunDirectoryError: the run is damaged, or there is none.
        DatasetError: the data cannot be read.
        ClassifierError: there is no classifier of it.
        InceptionError: the weights are not Inception's.
    """
    run = RunDirectory.open(path)
    _require_writable(path)
    run.read_checkpoint()
    if baseline is not None:
        _require_same_data(run, RunDirectory.open(baseline))
        RunDirectory.open(baseline).read_checkpoint()
        _held(baseline, request.options)
    ground = _prepare(run, request, progress)
    other = None if baseline is None else _current(baseline, ground, progress)
    return _evaluate(path, ground, progress, other)


def evaluate_seeds(paths: list[Path], request: Request, progress: Progress) -> list[Evaluation]:
    """The evaluations of runs that differ in their seed only, made where they are missing or out of date.

    Up to date is one of the same checkpoint and options, by the same classifier and with the same versions.

    Raises:
        EvaluationError: they differ in more, or one has an evaluation that was made with other options; or as
            evaluate_run.
        RunDirectoryError, DatasetError, ClassifierError, InceptionError: as evaluate_run.
    """
    require_seeds_only(paths, [_facts(path) for path in paths])
    for path in paths:
        _held(path, request.options)
    ground = _prepare(RunDirectory.open(paths[0]), request, progress)
    evaluations = []
    for index, path in enumerate(paths, 1):
        evaluations.append(
            _current(
                path,
                ground,
                lambda text, share: progress(f"run {index} of {len(paths)}: {text}", share),  # noqa: B023
            )
        )
    # A run that is still training may have moved on meanwhile.
    require_seeds_only(paths, [evaluation.run for evaluation in evaluations])
    return evaluations


def _prepare(run: RunDirectory, request: Request, progress: Progress) -> _Ground:
    """Opens the data of a run, and loads its classifier."""
    configuration, data = run.read_configuration()
    dataset = reopen_dataset(data, configuration.dataset, request.data_directory)
    _require_possible(dataset, request.options)
    # With fewer than two labels there is nothing to tell apart.
    labelled = dataset.frame is not None and len(dataset.label_names) > 1
    return _Ground(request.options, dataset, load_classifier(dataset, progress) if labelled else None)


def _current(path: Path, ground: _Ground, progress: Progress) -> Evaluation:
    """The evaluation of a run as it is now: the one that lies there where it is up to date, else a new one."""
    found = _held(path, ground.options)
    if found is not None:
        judged_by = None if found.classifier is None else found.classifier["sha256"]
        judge = None if ground.classifier is None else ground.classifier.sha256
        if (judged_by, found.environment) == (judge, environment()):
            return found
    return _evaluate(path, ground, progress, None)


def _evaluate(path: Path, ground: _Ground, progress: Progress, baseline: Evaluation | None) -> Evaluation:
    _require_writable(path)
    progress("reading the run and naming its categories", 0.0)
    model = load_trained_model(RunDirectory.open(path), dataset=ground.dataset)
    evaluated = evaluate(model, ground.options, ground.classifier, progress, baseline)
    _write(path, evaluated)
    return evaluated.evaluation


def _held(path: Path, options: Options) -> Evaluation | None:
    """The evaluation that lies in a run beside the checkpoint that it is of; None where there is none.

    Raises:
        EvaluationError: it was made with other options. Somebody wanted those, and did not ask for this run alone.
    """
    try:
        found = read_evaluation(path)
    except EvaluationError:
        return None
    if found.checkpoint_sha256 != RunDirectory.open(path).read_checkpoint().sha256:
        return None
    asked = {"--split": options.split, "--samples": options.samples, "--seed": options.seed}
    made = {"--split": found.split, "--samples": found.samples, "--seed": found.seed}
    differing = [f"{name} {made[name]}, not {asked[name]}" for name in asked if made[name] != asked[name]]
    if found.inception_sha256 != options.inception_sha256:
        differing.append(
            f"--inception-weights {_weights(found.inception_sha256)}, not {_weights(options.inception_sha256)}"
        )
    if differing:
        raise EvaluationError(
            f"{path} has an evaluation made with {'; '.join(differing)}: give the options it was made with, or replace "
            f"it first with infosink-evaluate {shlex.quote(str(path))} and the options wanted"
        )
    return found


def _weights(sha256: str | None) -> str:
    return "none" if sha256 is None else f"of SHA-256 {sha256[:12]}…"


def _facts(path: Path) -> dict[str, Any]:
    """What a run is: its settings, its data and how far it has come."""
    run = RunDirectory.open(path)
    configuration, data = run.read_configuration()
    return configuration.to_mapping() | {
        "data": data.get("facts"),
        "iteration": run.read_checkpoint().header.get("iteration"),
    }


def _require_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise EvaluationError(f"cannot write to {path}, where the evaluation belongs: make it writable")


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
