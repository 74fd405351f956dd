"""Opening data sets by name."""

import pytest
from infosink.training.datasets import DatasetError, open_dataset


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DatasetError, match=r"'cifar'.*mnist, gaussians, eight-gaussians, image-folder"):
        open_dataset("cifar")


def test_an_option_of_another_data_set_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="gaussians takes no --data-dir"):
        open_dataset("gaussians", data_directory=tmp_path)
    with pytest.raises(DatasetError, match="mnist takes no --sigma"):
        open_dataset("mnist", sigma=0.1)


@pytest.mark.parametrize("name", ["gaussians", "eight-gaussians", "mnist"])
def test_what_is_opened_says_its_name_and_shape(name, mnist_directory):
    data = open_dataset(name)
    assert data.name == name
    samples, _ = next(data.batches("test", 2))
    assert samples.shape == (2, *data.sample_shape)
    assert (data.frame is None) == (data.sample_shape == (2,))
