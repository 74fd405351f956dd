"""Agreement of partitions whose agreement is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from infosink.training.evaluation.clustering import cluster_agreement
from torch import Tensor

SAMPLES, CLASSES = 60, 5
PARTITIONS = st.lists(st.integers(0, CLASSES - 1), min_size=SAMPLES, max_size=SAMPLES).map(torch.tensor)
PERMUTATIONS = st.permutations(range(CLASSES)).map(torch.tensor)


def random_labels(count: int, classes: int, seed: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_a_permuted_labelling_scores_one_everywhere():
    label = random_labels(1_000, 10, 1)
    category = torch.randperm(10, generator=torch.Generator().manual_seed(2))[label]
    assert not torch.equal(category, label)
    assert cluster_agreement(category, label) == pytest.approx((1, 1, 1, 1))


def test_independent_labels_score_as_a_guess_does():
    agreement = cluster_agreement(random_labels(100_000, 10, 1), random_labels(100_000, 10, 2))
    # Each cell holds a hundredth; the best of ten in a row lies a few standard errors above it.
    error = math.sqrt(0.01 * 0.99 / 100_000)
    assert 0.1 < agreement.accuracy < 0.1 + 10 * 4 * error
    assert agreement.accuracy <= agreement.purity < 0.1 + 10 * 4 * error
    assert agreement.normalised_mutual_information == pytest.approx(0, abs=1e-3)
    assert agreement.adjusted_rand_index == pytest.approx(0, abs=1e-3)


def test_one_category_for_everything_says_nothing():
    label = torch.arange(40) % 4
    assert cluster_agreement(torch.zeros_like(label), label) == pytest.approx((0.25, 0, 0, 0.25))


def test_with_more_categories_than_labels_those_left_over_are_wrong_but_pure():
    label = torch.arange(40) % 2
    agreement = cluster_agreement(torch.arange(40) % 4, label)  # each label is split into two categories
    assert (agreement.accuracy, agreement.purity) == (0.5, 1.0)
    assert agreement.normalised_mutual_information == pytest.approx(math.log(2) / (0.5 * (math.log(4) + math.log(2))))


def test_with_fewer_categories_than_labels_those_left_over_are_wrong():
    agreement = cluster_agreement(torch.arange(40) % 2, torch.arange(40) % 4)
    assert (agreement.accuracy, agreement.purity) == (0.5, 0.5)


def test_pairing_is_one_to_one_where_the_majority_is_not():
    # Both categories are mostly label 0: purity names both by it, accuracy gives it to the better one.
    category = torch.tensor([0] * 10 + [1] * 10)
    label = torch.tensor([0] * 9 + [1] + [0] * 6 + [1] * 4)
    agreement = cluster_agreement(category, label)
    assert agreement.accuracy == pytest.approx((9 + 4) / 20)
    assert agreement.purity == pytest.approx((9 + 6) / 20)


@given(PARTITIONS, PARTITIONS, PERMUTATIONS, PERMUTATIONS)
def test_names_do_not_matter(category, label, other_names, yet_others):
    agreement = cluster_agreement(category, label)
    assert cluster_agreement(other_names[category], yet_others[label]) == pytest.approx(agreement, abs=1e-9)


@given(PARTITIONS, PARTITIONS)
def test_every_number_keeps_its_range_and_order(category, label):
    agreement = cluster_agreement(category, label)
    assert 1 / CLASSES <= agreement.accuracy <= agreement.purity <= 1
    assert 0 <= agreement.normalised_mutual_information <= 1 + 1e-9
    assert -0.5 <= agreement.adjusted_rand_index <= 1


@pytest.mark.parametrize(("categories", "labels"), [(3, 4), (0, 0)])
def test_what_does_not_pair_up_is_refused(categories, labels):
    with pytest.raises(ValueError, match=rf"\({categories},\).*\({labels},\).*give one of each"):
        cluster_agreement(torch.zeros(categories, dtype=torch.int64), torch.zeros(labels, dtype=torch.int64))
