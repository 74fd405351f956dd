"""Opening data sets by name."""

import pytest
import torch
from infosink.training.datasets import DatasetError, open_dataset


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DatasetError, match=r"'cifar'.*mnist, fashion-mnist, gaussians, eight-gaussians, image-folder"):
        open_dataset("cifar")


def test_an_option_of_another_data_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="gaussians takes no --data-dir"):
        open_dataset("gaussians", data_directory=tmp_path)
    with pytest.raises(DatasetError, match="mnist takes no --sigma"):
        open_dataset("mnist", sigma=0.1)
    with pytest.raises(DatasetError, match="gaussians takes no --hold-out"):
        open_dataset("gaussians", hold_out=100)


@pytest.mark.parametrize("name", ["gaussians", "eight-gaussians", "mnist"])
def test_what_is_opened_says_its_name_and_shape(name, mnist_directory):
    data = open_dataset(name)
    assert data.name == name
    samples, _ = next(data.batches("test", 2))
    assert samples.shape == (2, *data.sample_shape)
    assert (data.frame is None) == (data.sample_shape == (2,))


def test_images_held_out_leave_training_evenly_and_are_the_validation_split(mnist_directory):
    whole, parted = open_dataset("mnist"), open_dataset("mnist", hold_out=10_000)
    assert (parted.describe()["training_samples"], parted.describe()["validation_samples"]) == (50_000, 10_000)
    original, training, validation = (
        torch.cat([samples for samples, _ in data.batches(split, 10_000)])
        for data, split in ((whole, "training"), (parted, "training"), (parted, "validation"))
    )
    every_sixth = torch.arange(60_000) % 6 == 0
    assert torch.equal(validation, original[every_sixth])
    assert torch.equal(training, original[~every_sixth])
    labels = [label for _, label in whole.batches("training", 60_000)]
    assert torch.equal(next(parted.batches("validation", 10_000))[1], labels[0][every_sixth])
    drawn = parted.draw(3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, training[torch.randint(50_000, (3,), generator=torch.Generator().manual_seed(0))])
    moved = parted.to(torch.device("cpu"))
    assert torch.equal(next(moved.batches("validation", 5))[0], validation[:5])


@pytest.mark.parametrize("count", [0, -1, 30_001])
def test_more_than_half_or_nothing_cannot_be_held_out(count, mnist_directory):
    with pytest.raises(DatasetError, match=r"cannot be held out. Hold out 1 to 30,000 with --hold-out"):
        open_dataset("mnist", hold_out=count)


def test_without_images_held_out_there_is_no_validation_split(mnist_directory):
    with pytest.raises(DatasetError, match="No training images were held out"):
        open_dataset("mnist").batches("validation", 10)


def test_points_for_validation_are_neither_those_for_training_nor_for_testing():
    data = open_dataset("gaussians")
    first = {split: next(data.batches(split, 5))[0] for split in ("training", "validation", "test")}
    assert not torch.equal(first["validation"], first["training"])
    assert not torch.equal(first["validation"], first["test"])
