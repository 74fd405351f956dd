"""Inception features: what is refused, and that no file is trusted with code."""

import io
import pickle
import sys
from pathlib import Path

import pytest
import torch
from infosink.training.evaluation.inception import InceptionError, inception_distance

IMAGES = torch.zeros(2, 1, 28, 28)


class Trap:
    """An object that makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


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
