"""Several seeds in one table."""

import dataclasses
import json
from pathlib import Path

import pytest
from infosink.training.configuration import preset_configuration
from infosink.training.evaluation.record import Evaluation, EvaluationError
from infosink.training.evaluation.seeds import markdown, over_seeds, require_seeds_only, to_json

PATHS = [Path("runs/a"), Path("runs/b"), Path("runs/c")]


def run(seed: int, **changes: object) -> dict[str, object]:
    settings = preset_configuration("gaussians", "quick", seed=seed)
    return settings.to_mapping() | {"iteration": 5_000} | changes


def evaluation(seed: int, **measures: float) -> Evaluation:
    return Evaluation(
        checkpoint_sha256=f"{seed:064x}",
        run=run(seed),
        split="test",
        samples=10_000,
        seed=0,
        measures={name.replace("_", ".", 1): value for name, value in measures.items()},
        environment={},
    )


THREE = [
    evaluation(0, modes_modes=25, modes_reverse_kl=0.01, codes_recovery=0.9),
    evaluation(1, modes_modes=24, modes_reverse_kl=0.03, codes_recovery=0.8),
    evaluation(2, modes_modes=23, modes_reverse_kl=0.02),
]


def test_mean_deviation_and_extremes_over_runs():
    modes, reverse_kl, recovery = over_seeds(THREE)
    assert (modes.mean, modes.standard_deviation, modes.minimum, modes.maximum, modes.runs) == (24, 1.0, 23, 25, 3)
    assert reverse_kl.mean == pytest.approx(0.02)
    assert reverse_kl.standard_deviation == pytest.approx(0.01)
    assert (reverse_kl.minimum, reverse_kl.maximum) == (0.01, 0.03)
    assert (recovery.mean, recovery.runs) == (pytest.approx(0.85), 2)


def test_the_table_says_which_direction_is_worse_and_how_many_runs_have_the_measure():
    report = markdown(["a", "b", "c"], THREE)
    assert "seeds 0, 1, 2" in report
    assert "| reverse KL | ↓ | 0.0200 | 0.0100 | 0.0100 | 0.0300 | 3 |" in report
    assert "| code recovery | ↑ | 85.00% | 7.07% | 80.00% | 90.00% | 2 of 3 |" in report


def test_the_numbers_name_their_runs():
    record = json.loads(to_json(["a", "b", "c"], THREE))
    assert [each["seed"] for each in record["runs"]] == [0, 1, 2]
    assert record["measures"]["modes.modes"] == {
        "mean": 24.0, "standard_deviation": 1.0, "minimum": 23, "maximum": 25, "runs": 3,
    }  # fmt: skip
    assert "seed" not in record["run"]


def test_whoever_judged_is_named():
    judged = [
        dataclasses.replace(each, classifier={"sha256": "cd" * 32, "test_accuracy": 0.9942}, inception_sha256="ef" * 32)
        for each in THREE
    ]
    record = json.loads(to_json(["a", "b", "c"], judged))
    assert record["classifier"] == {"sha256": "cd" * 32, "test_accuracy": 0.9942}
    assert record["inception_sha256"] == "ef" * 32
    assert "SHA-256 cdcdcdcdcdcd…" in markdown(["a", "b", "c"], judged)


def test_a_mean_of_whole_numbers_keeps_its_fraction():
    report = markdown(["a", "b", "c"], [evaluation(seed, modes_modes=modes) for seed, modes in enumerate((25, 25, 24))])
    assert "| modes found | ↑ | 24.67 | 0.58 | 24 | 25 | 3 |" in report


def test_a_measure_of_a_single_run_has_no_deviation():
    (spread, _) = over_seeds([THREE[0], evaluation(1, codes_recovery=0.9)])[:2]
    assert spread.runs == 1
    report = markdown(["a", "b"], [THREE[0], evaluation(1, codes_recovery=0.9)])
    assert "| modes found | ↑ | 25.00 | – | 25 | 25 | 1 of 2 |" in report


def test_runs_that_differ_in_their_seed_only_are_accepted():
    require_seeds_only(PATHS, [run(0), run(1), run(2, preset="paper")])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([run(0)], "--seeds needs two runs"),
        ([run(0), run(1), run(0)], r"runs/a and runs/c have the same seed 0"),
        ([run(0), run(1, epsilon=0.5)], r"runs/a and runs/b differ in more than the seed: epsilon 1.5 and 0.5"),
        ([run(0), run(1, iteration=400)], "iteration 5000 and 400"),
        ([run(0, data={"sigma": 0.05}), run(1, data={"sigma": 0.1})], "data .*0.05.* and .*0.1"),
        ([run(0), run(1, invented=1)], "invented None and 1"),
    ],
)
def test_what_cannot_be_summed_up_is_refused_with_the_settings_that_differ(runs, message):
    with pytest.raises(EvaluationError, match=message):
        require_seeds_only(PATHS[: len(runs)], runs)
