"""Inception features: what is refused, and that no file is trusted with code."""

import io
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.datasets.images import ImageDataset, LabelledPixels
from infosink.training.evaluation import images
from infosink.training.evaluation.inception import InceptionError, inception_distance
from infosink.training.evaluation.quality import frechet_distance
from infosink.training.evaluation.subject import Findings, Options, prepare
from infosink.training.trained_model import TrainedModel
from infosink.training.trainer import make_networks
from torch import Tensor, nn

IMAGES = torch.zeros(2, 1, 28, 28)


class Trap:
    """An object that makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def features_of(levels: Tensor) -> Tensor:
    """Some features of images (n, 3, height, width), in units of levels: every 90th of them, and all in a corner."""
    return torch.cat([levels.flatten(1)[:, ::90], levels[:, 2, :2, :2].flatten(1)], dim=1).double()


class Extractor(nn.Module):
    """In the place of torch-fidelity's network, as it is called by its documentation."""

    def __init__(self, name: str, features: list[str], weights: io.BytesIO) -> None:
        super().__init__()
        assert (name, features) == ("inception", ["2048"])
        assert torch.load(weights, weights_only=True)["weight"].tolist() == [1, 1]

    def forward(self, levels: Tensor) -> tuple[Tensor]:
        assert levels.dtype == torch.uint8
        assert levels.shape[1] == 3
        return (features_of(levels),)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A file of weights, for an extractor that stands where torch-fidelity's would."""
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(2)}, path)
    return path


def test_the_distance_is_that_of_the_native_images_in_levels_from_0_to_255(mnist_directory, weights):
    """The frame's padding is cropped, levels are the data's own bytes, and grey is repeated to RGB."""
    mnist = open_dataset("mnist", data_directory=mnist_directory)
    assert isinstance(mnist, ImageDataset)
    # As many of either as are drawn, so that all are.
    training, test = (LabelledPixels(split.pixels[:70], split.labels[:70]) for split in (mnist.training, mnist.test))
    dataset = replace(mnist, training=training, test=test)
    settings = preset_configuration("mnist", "quick")
    model = TrainedModel(settings, dataset, make_networks(settings, dataset.sample_shape).eval(), [], "0" * 64, 0)
    findings = Findings()
    subject = prepare(model, Options(samples=70, inception_weights=weights), None)
    images.inception(subject, findings)

    def expected(levels: Tensor) -> float:
        return frechet_distance(*(features_of(each.repeat(1, 3, 1, 1)) for each in (test.pixels, levels)))

    assert test.pixels.shape[1:] == (1, 28, 28)
    assert findings.reference["quality.inception_distance"] == pytest.approx(expected(training.pixels))
    generated = ((subject.generated[:, :, 2:30, 2:30] + 1) * 127.5).round().byte()
    assert findings.measures["quality.inception_distance"] == pytest.approx(expected(generated))


def test_full_ink_is_level_255_and_none_is_level_0(weights):
    black, white = torch.full((2, 1, 28, 28), -1.0), torch.full((2, 3, 28, 28), 1.0)
    white += 1e-3  # a generator's rounding does not wrap around
    count = features_of(torch.zeros(1, 3, 28, 28)).shape[1]
    assert inception_distance(black, white, weights) == pytest.approx(count * 255**2)


def test_without_torch_fidelity_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if it were not installed, wherever this runs
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")
    with pytest.raises(InceptionError, match=r"pip install 'infosink\[inception\]'") as caught:
        inception_distance(IMAGES, IMAGES, tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InceptionError, match="No such file"):
        inception_distance(IMAGES, IMAGES, tmp_path / "weights.pth")


@pytest.mark.parametrize("packed", [True, False])
def test_code_in_a_file_of_weights_is_not_run(tmp_path, packed):
    sprung, path = tmp_path / "sprung", tmp_path / "weights.pth"
    written = io.BytesIO()
    (torch.save if packed else pickle.dump)({"weight": Trap(sprung)}, written)
    path.write_bytes(written.getvalue())
    with pytest.raises(InceptionError, match="does not hold weights and nothing else") as caught:
        inception_distance(IMAGES, IMAGES, path)
    assert str(path) in str(caught.value)
    assert not sprung.exists()
    written.seek(0)
    torch.load(written, weights_only=False) if packed else pickle.load(written)
    assert sprung.exists()  # the trap works


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InceptionError, match="does not hold weights"):
        inception_distance(IMAGES, IMAGES, path)
