"""Labelled anchors: which are taken, what they are told to, and what is refused before anything is done."""

import pytest
import torch
from infosink.training.anchors import draw_anchors, known_labels, require_anchors, spread_labels
from infosink.training.configuration import ConfigurationError, preset_configuration
from infosink.training.datasets import Dataset, open_dataset


@pytest.fixture(scope="module")
def mnist(mnist_directory) -> Dataset:
    return open_dataset("mnist", data_directory=mnist_directory)


def test_anchors_are_training_images_with_their_labels(mnist):
    anchors = draw_anchors(mnist, 3, 50, torch.Generator().manual_seed(0))
    assert anchors.labels.tolist() == [label for label in range(10) for _ in range(3)]
    known = known_labels(anchors, 10)
    assert torch.equal(known[:30], torch.eye(10).repeat_interleave(3, dim=0))
    assert not known[30:].any()
    images, labels = (torch.cat(parts) for parts in zip(*mnist.batches("training", 10_000), strict=True))
    for sample, label in zip(anchors.samples[:30:7], anchors.labels[::7], strict=True):
        same = (images == sample).flatten(1).all(dim=1)
        assert labels[same].tolist() == [int(label)]
    assert len(anchors.samples.flatten(1).unique(dim=0)) == len(known) == 50
    other = draw_anchors(mnist, 3, 50, torch.Generator().manual_seed(1))
    assert not torch.equal(anchors.samples, other.samples)


def test_labels_reach_what_hangs_together_and_say_how_sure_they_are():
    """Two arcs of directions, each labelled at one end only; a sample between them is reached by both."""
    arcs = torch.cat([torch.linspace(0.0, 1.0, 40), torch.linspace(1.6, 2.6, 40), torch.tensor([1.3])])
    features = torch.stack([arcs.cos(), arcs.sin()], dim=1) * torch.rand(
        81, 1, generator=torch.Generator().manual_seed(0)
    )
    known = torch.zeros(81, 2)
    known[0, 1] = known[79, 0] = 1.0
    spread = spread_labels(features, known)
    assert torch.equal(spread[[0, 79]], known[[0, 79]])
    assert spread[:40].argmax(dim=1).tolist() == [1] * 40
    assert spread[40:80].argmax(dim=1).tolist() == [0] * 40
    weight = spread.sum(dim=1)
    assert (spread > 0).sum(dim=1).max() == 1
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert weight[80] < 0.5 * weight[[1, 78]].min()


def test_spread_labels_solve_their_equation():
    """Against the sum Σ_t (a S)^t Y of Zhou et al., by hand on few samples."""
    random = torch.Generator().manual_seed(3)
    features, known = torch.randn(30, 4, generator=random), torch.zeros(30, 3)
    known[range(6), [0, 0, 1, 1, 2, 2]] = 1.0
    directions = (features / features.norm(dim=1, keepdim=True)).double()
    graph = torch.zeros(30, 30, dtype=torch.float64)
    for i in range(30):
        for j in sorted(set(range(30)) - {i}, key=lambda j, i=i: -float(directions[i] @ directions[j]))[:5]:
            graph[i, j] += 0.5
            graph[j, i] += 0.5
    degree = graph.sum(dim=1)
    step = 0.99 * graph / (degree[:, None] * degree).sqrt()
    reached = term = known.double()
    for _ in range(4000):
        term = step @ term
        reached = reached + term
    law = reached / reached.sum(dim=0)
    law = law / law.sum(dim=1, keepdim=True)
    entropy = -(law * law.log()).sum(dim=1)
    spread = spread_labels(features, known)
    assert torch.equal(spread.argmax(dim=1)[6:], law.argmax(dim=1)[6:])
    assert torch.allclose(spread.sum(dim=1)[6:].double(), (1 - entropy / torch.tensor(3.0).log())[6:], atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"categories": 12}, "names 12 categories by 10 labels: use --categories 10"),
        ({"anchor_labels": 6000}, "6000, and the training data has 5421 of 5: use at most that"),
        (
            {"anchor_labels": 5400, "merge_after": 1, "taught_until": 2, "merge_samples": 7000},
            "--merge-samples is 7000, and the training data has 6000 samples beside the anchors: use at most that",
        ),
    ],
)
def test_what_cannot_be_anchored_is_refused(overrides, message, mnist):
    settings = preset_configuration("mnist", "quick", **({"anchor_labels": 10} | overrides))
    with pytest.raises(ConfigurationError, match=message):
        require_anchors(settings, mnist)
