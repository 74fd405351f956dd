"""Merging clusters: what is kept, against brute force and against planted categories."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.ground_cost import l1
from infosink.training.invariance import deform
from infosink.training.merging import best_order, cluster_joint, merge_clusters
from infosink.training.trainer import make_networks
from torch import Tensor


def information(joint: Tensor, membership: Tensor, categories: int) -> float:
    assignment = F.one_hot(membership, categories).double()
    merged = assignment.T @ joint @ assignment
    outer = torch.outer(merged.sum(1), merged.sum(1))
    return float(torch.where(merged > 0, merged * (merged / outer).log(), 0.0).sum())


def law(clusters: int, seed: int) -> Tensor:
    joint = torch.rand(clusters, clusters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4
    return (joint + joint.T) / (2 * joint.sum())


@given(categories=st.integers(2, 7), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_one_merge_loses_the_least_information(categories, seed):
    """With one cluster too many a partition is a pair: all can be tried."""
    joint = law(categories + 1, seed)
    membership = merge_clusters(joint, categories)
    assert membership.unique().tolist() == list(range(categories))
    best = -1.0
    for low, high in itertools.combinations(range(categories + 1), 2):
        pair = torch.tensor([low if c == high else c - (c > high) for c in range(categories + 1)])
        best = max(best, information(joint, pair, categories))
    assert information(joint, membership, categories) == pytest.approx(best, abs=1e-12)


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_planted_categories_are_found(sizes, seed):
    """Clusters that meet more within their category than outside it are put together, in whatever order they come."""
    planted = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    same = planted[:, None] == planted[None, :]
    random = torch.Generator().manual_seed(seed)
    joint = same + 0.02 * torch.rand(len(planted), len(planted), generator=random)
    order = torch.randperm(len(planted), generator=random)
    membership = merge_clusters(joint[order][:, order], len(sizes))
    assert torch.equal(membership[:, None] == membership[None, :], same[order][:, order])


@given(count=st.integers(2, 12), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_best_order_overlaps_no_less_than_any_exchange_and_finds_a_clear_one(count, seed):
    random = torch.Generator().manual_seed(seed)
    planted = torch.randperm(count, generator=random)
    overlap = 0.4 * torch.rand(count, count, generator=random)
    order = best_order(overlap)
    assert order.sort().values.tolist() == list(range(count))
    rows = torch.arange(count)
    total = overlap[rows, order].sum()
    for low, high in itertools.combinations(range(count), 2):
        other = order.clone()
        other[[low, high]] = other[[high, low]]
        assert overlap[rows, other].sum() <= total + 1e-6
    overlap[rows, planted] += 1
    assert best_order(overlap).tolist() == planted.tolist()


def test_fewer_clusters_than_categories_are_refused():
    with pytest.raises(ValueError, match="3 clusters cannot be merged into 4 categories"):
        merge_clusters(law(3, 0), 4)


def test_the_joint_law_is_that_of_views_and_of_nearest_other_images(mnist_directory):
    """Recomputed image by image, from the definition; an image that was drawn twice is not its own neighbour."""
    mnist = open_dataset("mnist", data_directory=mnist_directory)
    small = {"over_clusters": 12, "merge_after": 1, "taught_until": 2}
    networks = make_networks(preset_configuration("mnist", "quick", **small), mnist.sample_shape).train()
    with torch.no_grad():
        networks.over_clustering.weight.mul_(30)  # clusters that differ, as after some training
    twice = mnist.draw(20, torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)

    class Drawn:
        def draw(self, count: int, random: torch.Generator) -> Tensor:
            return twice[:count]

    before = copy.deepcopy(networks.state_dict())
    joint = cluster_joint(networks, Drawn(), l1, -1.0, torch.Generator().manual_seed(1), count=40)
    assert networks.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks.state_dict().items())

    networks.eval()
    views = deform(twice, torch.Generator().manual_seed(1), -1.0)
    with torch.no_grad():
        q, q_view = (networks.over_clustering(networks.trunk(each)).softmax(1).double() for each in (twice, views))
    expected = torch.zeros(12, 12, dtype=torch.float64)
    for j in range(40):
        costs = [(float((twice[j] - twice[i]).abs().mean()), i) for i in range(40) if not twice[i].equal(twice[j])]
        expected += torch.outer(q[j], q_view[j]) / 80
        for _, i in sorted(costs)[:3]:
            expected += torch.outer(q[j], q[i]) / 240
    assert torch.allclose(joint, expected, atol=1e-6)
