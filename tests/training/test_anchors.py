"""Labelled anchors: which are taken, what they are told to, and what is refused before anything is done."""

import pytest
import torch
from infosink.training.anchors import anchored_mass, draw_anchors, label_clusters, require_anchors
from infosink.training.configuration import ConfigurationError, preset_configuration
from infosink.training.datasets import Dataset, open_dataset


@pytest.fixture(scope="module")
def mnist(mnist_directory) -> Dataset:
    return open_dataset("mnist", data_directory=mnist_directory)


def test_anchors_are_training_images_with_their_labels(mnist):
    anchors = draw_anchors(mnist, 3, torch.Generator().manual_seed(0))
    assert anchors.labels.tolist() == [label for label in range(10) for _ in range(3)]
    images, labels = (torch.cat(parts) for parts in zip(*mnist.batches("training", 10_000), strict=True))
    for sample, label in zip(anchors.samples[::7], anchors.labels[::7], strict=True):
        same = (images == sample).flatten(1).all(dim=1)
        assert labels[same].tolist() == [int(label)]
    assert len(anchors.samples.flatten(1).unique(dim=0)) == 30
    other = draw_anchors(mnist, 3, torch.Generator().manual_seed(1))
    assert not torch.equal(anchors.samples, other.samples)


def test_labels_reach_clusters_without_anchors_through_those_they_are_related_to():
    """A chain of clusters 0 - 1 - 2 and a pair 3 - 4, anchored at their ends only."""
    joint = torch.full((5, 5), 1e-4) + torch.diag(torch.full((5,), 1.0))
    for a, b in ((0, 1), (1, 2), (3, 4)):
        joint[a, b] = joint[b, a] = 0.3
    anchored = torch.zeros(5, 2)
    anchored[0, 1], anchored[4, 0] = 1.0, 5.0
    assert label_clusters(joint, anchored).tolist() == [1, 1, 1, 0, 0]


def test_the_mass_of_anchors_is_counted_by_label():
    q = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    assert anchored_mass(q, torch.tensor([1, 1, 0]), 3).tolist() == [[0.0, 1.25, 0.0], [1.0, 0.75, 0.0]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"categories": 12}, "names 12 categories by 10 labels: use --categories 10"),
        ({"anchor_labels": 6000}, "6000, and the training data has 5421 of 5: use at most that"),
    ],
)
def test_what_cannot_be_anchored_is_refused(overrides, message, mnist):
    settings = preset_configuration("mnist", "quick", **({"anchor_labels": 10} | overrides))
    with pytest.raises(ConfigurationError, match=message):
        require_anchors(settings, mnist)
