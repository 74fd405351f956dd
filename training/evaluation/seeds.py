"""Several runs that differ in their seed only: what to expect of the next one."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from .measures import DIRECTION_SIGNS, Measure, present
from .provenance import data_in_words, judge_in_words, run_in_words
from .record import Evaluation, EvaluationError
from .report import cell, table

FORMAT = "infosink-evaluation-of-seeds-1"


class Spread(NamedTuple):
    """A measure over runs. The worst run is the minimum where higher is better, and the maximum where lower is."""

    measure: Measure
    mean: float
    standard_deviation: float  # with n − 1; NaN for fewer than two runs
    minimum: float
    maximum: float
    runs: int  # that have the measure
    all_runs: int  # that were named


def require_seeds_only(paths: list[Path], runs: list[dict[str, Any]]) -> None:
    """Checks that runs are repetitions of one another.

    Args:
        paths: of the runs.
        runs: the settings and facts of each, by name.

    Raises:
        EvaluationError: there are fewer than two, two have the same seed, or they differ in more than the seed.
    """
    if len(runs) < 2:
        raise EvaluationError("--seeds needs two runs at least, trained alike but for their --seed")
    seeds: dict[int, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        # The preset is where values started from; it has no effect of its own.
        names = sorted({*runs[0], *run} - {"seed", "preset"})
        differing = [name for name in names if runs[0].get(name) != run.get(name)]
        if differing:
            told = "; ".join(f"{name} {_short(runs[0].get(name))} and {_short(run.get(name))}" for name in differing)
            raise EvaluationError(
                f"{paths[0]} and {path} differ in more than the seed: {told}. Compare runs that were trained alike"
            )
        if run["seed"] in seeds:
            raise EvaluationError(
                f"{seeds[run['seed']]} and {path} have the same seed {run['seed']}, and one run would count twice: "
                "leave one out"
            )
        seeds[run["seed"]] = path


def require_replaceable(output: Path) -> None:
    """Checks that the numbers beside a table, whose name nobody typed, would replace none but an earlier table's.

    Args:
        output: of the table; the numbers go beside it as .json.

    Raises:
        EvaluationError: a file of that name holds something else, a run's config.json say.
    """
    numbers = output.with_suffix(".json")
    if not numbers.exists():
        return
    try:
        values = json.loads(numbers.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise EvaluationError(
            f"{numbers}, where the numbers of {output} belong, holds something else: name another --output"
        )


def over_seeds(evaluations: list[Evaluation]) -> list[Spread]:
    """Mean, standard deviation, minimum and maximum of every measure."""
    return [
        Spread(
            measure,
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else math.nan,
            min(values),
            max(values),
            len(values),
            len(evaluations),
        )
        for measure in present(*(evaluation.measures for evaluation in evaluations))
        if (values := [each.measures[measure.name] for each in evaluations if measure.name in each.measures])
    ]


def to_json(names: list[str], evaluations: list[Evaluation]) -> str:
    """The numbers, and which runs they are of."""
    shared = evaluations[0]
    record = {
        "format": FORMAT,
        "run": {name: value for name, value in shared.run.items() if name != "seed"},
        "runs": [
            {"name": name, "seed": each.run["seed"], "checkpoint_sha256": each.checkpoint_sha256}
            for name, each in zip(names, evaluations, strict=True)
        ],
        "data": shared.data,
        "classifier": shared.classifier,
        "inception_sha256": shared.inception_sha256,
        "split": shared.split,
        "samples": shared.samples,
        "seed": shared.seed,
        "measures": {
            spread.measure.name: {
                "mean": spread.mean,
                **({"standard_deviation": spread.standard_deviation} if spread.runs > 1 else {}),
                "minimum": spread.minimum,
                "maximum": spread.maximum,
                "runs": spread.runs,
            }
            for spread in over_seeds(evaluations)
        },
    }
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def markdown(names: list[str], evaluations: list[Evaluation]) -> str:
    """The report."""
    shared = evaluations[0]
    run = shared.run
    seeds = ", ".join(str(each.run["seed"]) for each in evaluations)
    return "\n".join(
        [
            f"# {len(evaluations)} seeds of {cell(run['dataset'])}, λ = {run['lambda']:g}\n",
            f"Runs {', '.join(map(cell, names))}, seeds {seeds}: {run_in_words(run)}, iteration "
            f"{run['iteration']:,} of {run['iterations']:,} each. {data_in_words(shared.data)}Real samples of the "
            f"{shared.split} split, {shared.samples:,} generated, evaluation seed {shared.seed}."
            f"{judge_in_words(shared)}\n",
            "Every run named is counted, but a run where a measure is undefined is left out of it: runs then says "
            f"how many of the {len(evaluations)} it is of. The standard deviation is over runs (n − 1). "
            "The worst run is the minimum where ↑ is better, the maximum where ↓ is.\n",
            table(
                ["", "better", "mean", "standard deviation", "minimum", "maximum", "runs", "definition"],
                ([*row(spread), spread.measure.definition] for spread in over_seeds(evaluations)),
            ),
        ]
    )


def row(spread: Spread) -> list[str]:
    """A measure over runs, for people."""
    measure = spread.measure
    # A mean of whole numbers is not one.
    averaged = measure._replace(form=measure.form.replace(".0f", ".2f"))
    deviation = "–" if math.isnan(spread.standard_deviation) else averaged.written(spread.standard_deviation)
    return [
        measure.title,
        DIRECTION_SIGNS[measure.better],
        averaged.written(spread.mean),
        deviation,
        measure.written(spread.minimum),
        measure.written(spread.maximum),
        str(spread.runs) if spread.runs == spread.all_runs else f"{spread.runs} of {spread.all_runs}",
    ]


def _short(value: object) -> str:
    """A value that fits into a message."""
    return textwrap.shorten(str(value), 60, placeholder=" …")
