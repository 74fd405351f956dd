"""What a figure was drawn from, in words below it and in the numbers beside it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from ..trained_model import TrainedModel


def facts(model: TrainedModel) -> dict[str, Any]:
    """What a model is: its settings, its data, and which checkpoint it was read from."""
    return {
        "iteration": model.iteration,
        "checkpoint_sha256": model.checkpoint_sha256,
        "settings": model.configuration.to_mapping(),
        "data": model.dataset.describe(),
    }


def versions() -> dict[str, str]:
    """What a figure's numbers depend on besides its settings."""
    return {
        "infosink": version("infosink"),
        "torch": torch.__version__,
        "matplotlib": version("matplotlib"),
        "machine": platform.machine(),
    }


def differences(baseline: TrainedModel, informative: TrainedModel) -> dict[str, tuple[Any, Any]]:
    """What the training of two models differs in besides λ, by the names of settings: of the one, of the other.

    The iterations are those done; the preset has no effect of its own.
    """
    one, other = (
        model.configuration.to_mapping() | {"iterations": model.iteration} for model in (baseline, informative)
    )
    return {
        name: (one[name], other[name]) for name in one if name not in ("lambda", "preset") and one[name] != other[name]
    }


def caption(baseline: TrainedModel, informative: TrainedModel) -> str:
    """Data, solver, ε, λ and iterations of two runs on the same data, and what they differ in besides λ."""
    one, other = baseline.configuration, informative.configuration
    data = baseline.dataset.describe()
    name = baseline.dataset.name
    own = "" if data["source"] in ("MNIST", "formula") else f" ({data['source']})"
    differing = [
        f"{name.replace('_', ' ')} ({_said(a)} and {_said(b)})"
        for name, (a, b) in differences(baseline, informative).items()
    ]
    return (
        f"{name}{own}, {data['training_samples']:,} training samples: {_both(one.solver, other.solver)}, "
        f"ε = {_both(f'{one.epsilon:g}', f'{other.epsilon:g}')}, λ = {one.lambda_:g} and {other.lambda_:g}, "
        f"{_both(f'{baseline.iteration:,}', f'{informative.iteration:,}')} iterations; "
        + (f"besides λ they differ in: {', '.join(differing)}" if differing else "they differ in nothing but λ")
    )


def _both(one: str, other: str) -> str:
    return one if one == other else f"{one} and {other}"


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
