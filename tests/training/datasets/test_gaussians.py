"""The Gaussian mixtures against their formula."""

import json
import math

import pytest
import torch
from infosink.training.datasets import DatasetError, open_dataset

MIXTURES = [("gaussians", 25, 0.05), ("eight-gaussians", 8, 0.02)]


@pytest.mark.parametrize(("name", "components", "sigma"), MIXTURES)
def test_each_component_has_its_weight_mean_and_deviation(name, components, sigma):
    mixture = open_dataset(name)
    assert mixture.sigma == sigma
    assert mixture.label_names == tuple(map(str, range(components)))
    points, labels = next(mixture.batches("training", 50_000))
    assert (points.shape, points.dtype, labels.dtype) == ((50_000, 2), torch.float32, torch.int64)
    for component, centre in enumerate(mixture.centres):
        own = points[labels == component].double()
        # Five standard errors of each estimate.
        share = 1 / components
        assert abs(len(own) / 50_000 - share) < 5 * math.sqrt(share * (1 - share) / 50_000)
        assert ((own.mean(0) - centre).abs() < 5 * sigma / math.sqrt(len(own))).all()
        covariance = torch.cov(own.T) / sigma**2
        assert ((covariance - torch.eye(2)).abs() < 5 * math.sqrt(2 / len(own))).all()


def test_the_grid_is_numbered_up_its_columns():
    centres = open_dataset("gaussians").centres.tolist()
    assert centres[:6] == [[-4, -4], [-4, -2], [-4, 0], [-4, 2], [-4, 4], [-2, -4]]
    assert sorted(centres) == [[x, y] for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]


def test_the_circle_is_numbered_anticlockwise():
    centres = open_dataset("eight-gaussians").centres
    expected = torch.tensor([[2 * math.cos(math.pi * k / 4), 2 * math.sin(math.pi * k / 4)] for k in range(8)])
    torch.testing.assert_close(centres, expected)


@pytest.mark.parametrize("name", ["gaussians", "eight-gaussians"])
def test_draws_come_from_the_mixture_and_repeat_with_the_generator(name):
    mixture = open_dataset(name, sigma=0.1)
    points = mixture.draw(20_000, torch.Generator().manual_seed(5))
    assert torch.equal(points, mixture.draw(20_000, torch.Generator().manual_seed(5)))
    assert not torch.equal(points, mixture.draw(20_000, torch.Generator().manual_seed(6)))
    distances, nearest = torch.cdist(points, mixture.centres).min(1)
    assert set(nearest.tolist()) == set(range(len(mixture.centres)))
    assert distances.square().mean().item() == pytest.approx(2 * 0.1**2, rel=0.05)


def test_batches_are_fixed_and_the_splits_are_independent():
    mixture = open_dataset("gaussians")
    training, test = (next(mixture.batches(split, 50_000)) for split in ("training", "test"))
    assert (len(training[0]), len(test[0])) == (50_000, 10_000)
    again = torch.cat([points for points, _ in open_dataset("gaussians").batches("test", 999)])
    assert torch.equal(test[0], again)
    assert not torch.equal(test[0], training[0][:10_000])
    assert not torch.equal(test[1], training[1][:10_000])


def test_the_description_is_json():
    facts = json.loads(json.dumps(open_dataset("gaussians", sigma=0.1).describe()))
    assert facts["sigma"] == 0.1
    assert len(facts["centres"]) == 25


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_deviation_that_is_not_positive_is_refused(sigma):
    with pytest.raises(DatasetError, match="not a positive number"):
        open_dataset("gaussians", sigma=sigma)
