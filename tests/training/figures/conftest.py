"""Models on real data, small enough to be made in a moment; what they draw is noise, but laid out as it should be."""

from pathlib import Path

import pytest
import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.labelling import NamedCategory
from infosink.training.networks import inference_copy
from infosink.training.trained_model import TrainedModel
from infosink.training.trainer import make_networks

_IMAGES = 400


@pytest.fixture(scope="session")
def few_digits(mnist_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 images of each of MNIST's files."""
    directory = tmp_path_factory.mktemp("digits")
    for path in mnist_directory.glob("*-ubyte"):
        contents = path.read_bytes()
        header, size = (16, 784) if contents[3] == 3 else (8, 1)
        shortened = contents[:4] + _IMAGES.to_bytes(4, "big") + contents[8 : header + _IMAGES * size]
        (directory / path.name).write_bytes(shortened)
    return directory


@pytest.fixture
def models(few_digits: Path) -> dict[str, TrainedModel]:
    """An untrained model for each run that infosink-figures asks for, by the name of its option."""
    built = {}
    random = torch.Generator().manual_seed(0)
    for data, name in (("gaussians", "eight-gaussians"), ("mnist", "mnist")):
        dataset = open_dataset(name, data_directory=few_digits if data == "mnist" else None)
        for suffix, changes in (("", {}), ("-baseline", {"lambda": 0.0})):
            settings = preset_configuration(name, **changes)
            networks = make_networks(settings, dataset.sample_shape)
            latents = settings.latent_space.draw(40, random)
            networks = inference_copy(networks, [dataset.draw(40, random)], [latents])
            labels = ["3", "1", "", "1", "0", "2", "6", "5", "7", "4"][: settings.categories]
            shares = [0.5, 0.6, 0.0, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
            named = [NamedCategory(label, share, 0.1, 0.3) for label, share in zip(labels, shares, strict=False)]
            built[data + suffix] = TrainedModel(settings, dataset, networks, named, "0" * 64, 7)
    return built
