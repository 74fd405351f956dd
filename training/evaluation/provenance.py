"""What an evaluation is of, in words: the run, its data, and what sets it apart from its preset and its baseline."""

from __future__ import annotations

from typing import Any

from ..configuration import ConfigurationError, preset_configuration
from .record import Evaluation


def provenance(evaluation: Evaluation) -> str:
    """The run and its data, what was drawn to measure it, and who judged."""
    run = evaluation.run
    text = (
        f"{run_in_words(run)}, seed {run['seed']}, iteration {run['iteration']:,} of {run['iterations']:,}. "
        f"{data_in_words(evaluation.data)}Real samples of the {evaluation.split} split, "
        f"{evaluation.samples:,} generated, evaluation seed {evaluation.seed}. "
        f"Checkpoint SHA-256 {evaluation.checkpoint_sha256[:12]}…"
    )
    return text + judge_in_words(evaluation)


def run_in_words(run: dict[str, Any]) -> str:
    """A run's preset, the settings that differ from it, and those that matter most; its seed is not among them."""
    main = f"{run['solver']}, ε = {run['epsilon']:g}, λ = {run['lambda']:g}"
    try:
        preset = preset_configuration(run["dataset"], run["preset"]).to_mapping()
    except ConfigurationError:
        return f"{run['dataset']}, preset {run['preset']}, which is unknown: {main}"
    changed = [f"{name} {run[name]} (there {preset[name]})" for name in _differing(run, preset)]
    return f"{run['dataset']}, preset {run['preset']}{' but for ' + ', '.join(changed) if changed else ''}: {main}"


def data_in_words(data: dict[str, Any]) -> str:
    """The sizes of the splits and, of points, σ; a sentence, or nothing where it was not recorded."""
    sizes = [
        f"{data[f'{split}_samples']:,} {split}"
        for split in ("training", "validation", "test")
        if f"{split}_samples" in data
    ]
    if not sizes:
        return ""
    sigma = f", σ = {data['sigma']}" if "sigma" in data else ""
    return f"The data has {', '.join(sizes)} samples{sigma}. "


def judge_in_words(evaluation: Evaluation) -> str:
    """The networks that judged, each by its digest; a sentence after another, or nothing where there was none."""
    text = ""
    if evaluation.classifier:
        text += (
            f" The independent classifier, SHA-256 {evaluation.classifier['sha256'][:12]}…, "
            f"is right on {evaluation.classifier['test_accuracy']:.2%} of the test images."
        )
    if evaluation.inception_sha256:
        text += f" The file of Inception's weights has SHA-256 {evaluation.inception_sha256[:12]}…."
    return text


def baseline_in_words(evaluation: Evaluation) -> str:
    """How the baseline differs from the run, and what of the information it learns from all the same."""
    if evaluation.baseline is None:
        return ""
    run, other = evaluation.run, evaluation.baseline["run"]
    differing = [f"{name} {other[name]} (here {run[name]})" for name in _differing(run, other)]
    text = (
        f"The baseline is of seed {other['seed']}, iteration {other['iteration']:,} of {other['iterations']:,}, "
        f"checkpoint SHA-256 {evaluation.baseline['checkpoint_sha256'][:12]}…; its settings differ in "
        f"{', '.join(differing) or 'none'}."
    )
    kept = [f"{name} {other[name]:g}" for name in ("invariance", "listening") if other[name]]
    if kept and not other["lambda"]:
        text += f" It is no plain Sinkhorn GAN: its λ is 0, yet it learns by {' and '.join(kept)}."
    return text


def _differing(run: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings in which two runs differ, but for the preset, which has no effect of its own, and the seed."""
    told_elsewhere = {"preset", "seed", "iteration"}
    return [name for name in run if name not in told_elsewhere and name in other and run[name] != other[name]]
