"""An exported file states the digest of its own content, and a server takes no other content."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from infosink.export.content_digest import serialised
from infosink.export.export import ExportedModel
from infosink.serving.errors import StartupError
from infosink.serving.models.served_model import load_model
from infosink.training.trained_model import TrainedModel

POSITIONS = 40


def refused(path: Path) -> str:
    with pytest.raises(StartupError) as caught:
        load_model(path, name=None, encoder_path=None, device="cpu", threads=1, stream_samples=1)
    return str(caught.value)


def test_both_files_state_their_content(
    model_and_files: tuple[TrainedModel, ExportedModel], states_its_content: Callable[[Path], bool]
) -> None:
    _, files = model_and_files
    for path in (files.generator_path, files.encoder_path):
        assert states_its_content(path)
        # Whoever opens it is told how to check it.
        assert "infosink.content_sha256 is the SHA-256 of this file" in onnx.load(path).doc_string


@pytest.mark.parametrize("position", range(POSITIONS))
def test_a_flipped_bit_is_refused(gaussians_files: ExportedModel, tmp_path: Path, position: int) -> None:
    content = bytearray(gaussians_files.generator_path.read_bytes())
    at = position * (len(content) - 1) // (POSITIONS - 1)
    content[at] ^= 1 << position % 8
    path = tmp_path / "gen.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith((f"{path} is damaged: ", f"{path} is not a model onnxruntime")), message


def test_a_file_that_was_cut_short_is_refused(gaussians_files: ExportedModel, tmp_path: Path) -> None:
    content = gaussians_files.generator_path.read_bytes()
    path = tmp_path / "gen.onnx"
    for length in (4096, len(content) // 2, content.rindex(b"infosink.role"), len(content) - 93, len(content) - 1):
        path.write_bytes(content[:length])
        assert f"{path} is damaged: it should hold infosink.content_sha256 once, and holds it 0 times" in refused(path)


def test_a_file_that_is_serialised_again_keeps_its_bytes(
    gaussians_files: ExportedModel, states_its_content: Callable[[Path], bool], tmp_path: Path
) -> None:
    model = onnx.load(gaussians_files.generator_path)
    assert serialised(model) == gaussians_files.generator_path.read_bytes()
    next(entry for entry in model.metadata_props if entry.key == "infosink.name").value = "renamed"
    (tmp_path / "gen.onnx").write_bytes(serialised(model))
    assert states_its_content(tmp_path / "gen.onnx")
