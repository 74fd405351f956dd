"""An export as a whole: what the files say of themselves, and what a failure leaves behind."""

import copy
import dataclasses
import json
from pathlib import Path

import onnx
import pytest
import torch
from google.protobuf.json_format import Parse
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel, export_model
from infosink.training.configuration import Configuration
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import Category, ImageSpace, LatentSpace, PointSpace, SampleSpace, Style


def properties(path: Path) -> dict[str, str]:
    model = onnx.load(path)
    return {entry.key.removeprefix("infosink."): entry.value for entry in model.metadata_props}


def test_files_describe_themselves(mnist: TrainedModel, mnist_files: ExportedModel) -> None:
    generator, encoder = properties(mnist_files.generator_path), properties(mnist_files.encoder_path)
    assert (generator.pop("role"), encoder.pop("role")) == ("generator", "encoder")
    assert generator.pop("card").startswith("# mnist\n")
    assert generator.pop("content_sha256") != encoder.pop("content_sha256")
    assert generator == encoder
    latents = Parse(generator.pop("latent_space"), LatentSpace())
    assert latents == LatentSpace(
        categories=[Category(**dataclasses.asdict(category)) for category in mnist.categories],
        styles=[Style(name="style 1"), Style(name="style 2")],
        noise_dimensions=88,
    )
    assert sum(category.sample_share for category in latents.categories) == pytest.approx(1)
    assert Parse(generator.pop("sample_space"), SampleSpace()) == SampleSpace(
        image=ImageSpace(
            channels=1, height=32, width=32, padding_top=2, padding_left=2, padding_bottom=2, padding_right=2,
            background=0, minimum=-1, maximum=1,
        )
    )  # fmt: skip
    assert Configuration.from_mapping(json.loads(generator.pop("config"))) == mnist.configuration
    parity = json.loads(generator.pop("parity"))
    assert parity["sample"] == pytest.approx(mnist_files.parity.sample, rel=0.05)
    assert parity["pixels"] == mnist_files.parity.pixels
    tolerance = parity["tolerance"]
    assert tolerance.keys() == mnist_files.parity.differences.keys()
    assert tolerance.pop("pixels") == 1
    assert all(1e-5 <= value <= 1e-3 for value in tolerance.values())
    assert parity["tolerance_rule"] == (
        "max(1e-05, 4 x the float32 error of torch itself), at most 0.001; pixels: 1 level"
    )
    assert generator == {
        "schema_version": "1",
        "name": "mnist",
        "data_set": "mnist",
        "checkpoint_sha256": mnist.checkpoint_sha256,
        "licence": "LicenseRef-Unstated",
        "weights": "float32",
        "precision": "float32",
    }


def test_points_describe_themselves(gaussians: TrainedModel, gaussians_files: ExportedModel) -> None:
    generator = properties(gaussians_files.generator_path)
    latents = Parse(generator["latent_space"], LatentSpace())
    assert [category.label for category in latents.categories] == [category.label for category in gaussians.categories]
    assert (len(latents.categories), len(latents.styles), latents.noise_dimensions) == (25, 0, 103)
    assert Parse(generator["sample_space"], SampleSpace()) == SampleSpace(point=PointSpace(dimensions=2))
    assert (generator["name"], generator["licence"]) == ("dots", "MIT")
    assert "pixels" not in json.loads(generator["parity"])


def test_nothing_else_is_left_behind(mnist_files: ExportedModel) -> None:
    assert sorted(path.name for path in mnist_files.generator_path.parent.iterdir()) == ["gen.onnx", "q.onnx"]


def test_a_failed_export_leaves_earlier_files(gaussians: TrainedModel, tmp_path: Path) -> None:
    """A weight that is not a number passes every check but the comparison."""
    for name in ("gen.onnx", "q.onnx"):
        (tmp_path / name).write_text(f"the earlier {name}")
    networks = copy.deepcopy(gaussians.networks)
    next(networks.sampling_generator.parameters())[0, 0] = torch.nan
    broken = dataclasses.replace(gaussians, networks=networks)
    with pytest.raises(ExportError, match=r"differs from PyTorch by nan.*weights are finite"):
        export_model(broken, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "gen.onnx": "the earlier gen.onnx",
        "q.onnx": "the earlier q.onnx",
    }


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", "x" * 65, "ä"])
def test_a_name_that_no_server_takes_is_refused(gaussians: TrainedModel, tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="give --name 1 to 64 of A-Z a-z 0-9"):
        export_model(gaussians, tmp_path, name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("licence", [" ", "two\nlines", "x" * 257])
def test_a_licence_that_is_no_line_is_refused(gaussians: TrainedModel, tmp_path: Path, licence: str) -> None:
    with pytest.raises(ExportError, match="not one line of 1 to 256 characters"):
        export_model(gaussians, tmp_path, licence=licence)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "complaint"),
    [("x" * 129, "takes 129 bytes"), ("ü" * 65, "takes 130 bytes"), ("\udcff", "is not UTF-8")],
    ids=["long", "long in bytes", "surrogate"],
)
def test_a_label_that_cannot_be_served_is_refused(
    gaussians: TrainedModel, tmp_path: Path, label: str, complaint: str
) -> None:
    first, *others = gaussians.categories
    renamed = dataclasses.replace(gaussians, categories=[dataclasses.replace(first, label=label), *others])
    with pytest.raises(ExportError, match=f"{complaint}.*in the data"):
        export_model(renamed, tmp_path)
    assert not list(tmp_path.iterdir())
