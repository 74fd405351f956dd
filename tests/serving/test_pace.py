"""The estimate by which waiting is refused: what it learns, and what it forgets."""

import pytest
from infosink.serving.runtime.pace import Pace

FULL = 32


def test_it_follows_full_runs() -> None:
    pace = Pace(None, 0, FULL)
    assert pace.seconds(1000, 0) == 0
    # What a row takes alone says nothing of what it takes among many.
    pace.learn(1, 0.1, 0)
    assert pace.seconds(1000, 0) == 0
    pace.learn(64, 0.64, 0)
    assert pace.seconds(1000, 0) == pytest.approx(10)
    for _ in range(50):
        pace.learn(64, 0.96, 0)
    assert pace.seconds(1000, 0) == pytest.approx(15, rel=1e-3)


def test_a_small_run_only_ever_says_less() -> None:
    pace = Pace(0.01, 0, FULL)
    pace.learn(1, 5.0, 0)
    assert pace.seconds(1, 0) == 0.01
    for _ in range(50):
        pace.learn(1, 0.001, 0)
    assert pace.seconds(1, 0) == pytest.approx(0.001, rel=1e-2)


def test_one_run_that_was_held_up_changes_little() -> None:
    pace = Pace(0.01, 0, FULL)
    pace.learn(64, 3600, 0)
    assert pace.seconds(1, 0) <= 0.0121


def test_nobody_is_refused_for_ever_by_what_was_learned_once() -> None:
    pace = Pace(10.0, 0, FULL)
    assert pace.seconds(64, 0) == 640
    assert pace.seconds(64, 60) < 1
    # To be believed again, it takes a run.
    pace.learn(64, 640, 60)
    assert pace.seconds(64, 60) == pytest.approx(640)
