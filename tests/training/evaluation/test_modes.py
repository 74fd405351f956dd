"""Mode coverage of samplers whose coverage is known."""

import math

import pytest
import torch
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.modes import mode_coverage

GRID = open_dataset("gaussians")
COLLAPSED = torch.zeros(100, 2), torch.zeros(100, dtype=torch.int64)


def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return GRID.draw_labelled(count, torch.Generator().manual_seed(2))


def test_a_perfect_sampler_finds_every_mode_and_scores_what_the_formula_says():
    points, modes = draw(40_000)
    perfect = mode_coverage(points, modes, GRID.centres, GRID.sigma)
    assert perfect.modes == 25
    expected = 1 - math.exp(-9 / 2)
    error = math.sqrt(expected * (1 - expected) / 40_000)
    assert abs(perfect.high_quality - expected) < 4 * error
    assert perfect.code_mode_purity == 1.0


def test_purity_is_blind_to_what_the_categories_are_called_and_low_where_they_mean_nothing():
    points, modes = draw(20_000)
    permuted = mode_coverage(points, (modes * 7 + 3) % 25, GRID.centres, GRID.sigma)
    assert permuted.code_mode_purity == 1.0
    independent = torch.randint(25, modes.shape, generator=torch.Generator().manual_seed(3))
    assert mode_coverage(points, independent, GRID.centres, GRID.sigma).code_mode_purity < 0.08
    # The floor that its definition states, of the protocol's 2,500 samples.
    few = mode_coverage(points[:2_500], independent[:2_500], GRID.centres, GRID.sigma)
    assert few.code_mode_purity == pytest.approx(0.084, abs=0.01)


def test_samples_in_one_mode_are_good_and_cover_nothing_else():
    collapsed = mode_coverage(*COLLAPSED, GRID.centres, GRID.sigma)
    assert (collapsed.modes, collapsed.high_quality) == (1, 1.0)
    assert collapsed.reverse_kl == pytest.approx(math.log(25))
    assert collapsed.code_mode_purity == 1.0  # why it is not to be read alone


def test_reverse_kl_is_that_of_the_shares_of_the_modes():
    balanced = GRID.centres.repeat(4, 1)
    assert mode_coverage(balanced, torch.zeros(100, dtype=torch.int64), GRID.centres, 0.05).reverse_kl == pytest.approx(
        0, abs=1e-12
    )
    lopsided = GRID.centres[[0, 0, 0, 1]]
    expected = 0.75 * math.log(25 * 0.75) + 0.25 * math.log(25 * 0.25)
    assert mode_coverage(lopsided, torch.zeros(4, dtype=torch.int64), GRID.centres, 0.05).reverse_kl == pytest.approx(
        expected
    )


def test_reverse_kl_counts_samples_of_low_quality_too():
    between = GRID.centres + torch.tensor([0.9, 0.0])
    coverage = mode_coverage(between, torch.zeros(25, dtype=torch.int64), GRID.centres, GRID.sigma)
    assert (coverage.modes, coverage.high_quality) == (0, 0.0)
    assert coverage.reverse_kl == pytest.approx(0, abs=1e-12)


def test_the_reverse_kl_of_a_perfect_sampler_is_its_sampling_error():
    points, modes = draw(100 * 2_500)
    runs = zip(points.split(2_500), modes.split(2_500), strict=True)
    found = torch.tensor([mode_coverage(*run, GRID.centres, GRID.sigma).reverse_kl for run in runs])
    error = math.sqrt(24 / 2) / 2_500 / math.sqrt(100)  # 2 n KL is chi-squared with 24 degrees of freedom
    assert abs(found.mean().item() - 24 / 5_000) < 4 * error
