"""The whole chain by its commands: train on real MNIST images, export, serve, and use what is served."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from infosink.clients import Client
from PIL import Image

BIN = Path(sys.executable).parent
IMAGES = 1200


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory, mnist_directory) -> Path:
    """The first real images of both splits, as IDX files."""
    directory = tmp_path_factory.mktemp("mnist")
    for split in ("train", "t10k"):
        images = (mnist_directory / f"{split}-images-idx3-ubyte").read_bytes()
        labels = (mnist_directory / f"{split}-labels-idx1-ubyte").read_bytes()
        count = IMAGES.to_bytes(4, "big")
        (directory / f"{split}-images-idx3-ubyte").write_bytes(images[:4] + count + images[8 : 16 + IMAGES * 784])
        (directory / f"{split}-labels-idx1-ubyte").write_bytes(labels[:4] + count + labels[8 : 8 + IMAGES])
    return directory


def call(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(small_mnist, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("chain") / "run"
    sizes = ("--iterations", "30", "--batch-size", "32", "--view-batch-size", "32")
    call("infosink-train", "mnist", "--preset", "quick", "--data-dir", small_mnist, *sizes, "-o", directory)
    call("infosink-export", directory)
    return directory


@pytest.fixture(scope="module")
def address(run):
    arguments = [BIN / "infosink-serve", "--model", run / "gen.onnx", "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        assert "SERVING mnist (10 categories, 2 styles, codes inferred)" in ready
        yield ready.split(" on ")[1].split(",")[0]
        process.terminate()
    assert process.returncode == 0


def test_the_served_description_is_the_run(run, address):
    (described,) = json.loads(call("infosink", "models", "--server", address, "--json"))["models"]
    model = described["model"]
    assert json.loads(model["config_json"])["iterations"] == 30
    assert model["latent_space"]["noise_dimensions"] == 88
    assert (model["sample_space"]["image"]["height"], model["sample_space"]["image"]["padding_top"]) == (32, 2)


def test_a_label_is_sampled_in_the_native_frame(run, address, tmp_path):
    with Client(address) as client:
        label = client.model().model.latent_space.categories[0].label
        category_labels = [category.label for category in client.model().model.latent_space.categories]
    arguments = ["--label", label, "--style", "0.5", "--style", "-0.3", "--count", "16", "--seed", "1"]
    call("infosink", "sample", *arguments, "-o", tmp_path / "grid.png", "--server", address)
    call("infosink", "sample", *arguments, "-o", tmp_path / "arrays.npz", "--server", address)
    call("infosink", "sample", *arguments, "-o", f"{tmp_path}/each/", "--server", address)
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert arrays["samples"].shape == (16, 28, 28)
        assert set(arrays["label"]) == {label}
        assert {category_labels[k] for k in arrays["category"]} == {label}
        np.testing.assert_allclose(arrays["style"], np.tile(np.float32([0.5, -0.3]), (16, 1)))
        singles = []
        for path in sorted((tmp_path / "each").iterdir()):
            with Image.open(path) as image:
                singles.append(np.asarray(image))
        np.testing.assert_array_equal(np.stack(singles), arrays["samples"])


def test_codes_of_samples_are_inferred(address, tmp_path):
    call(
        "infosink",
        "sample",
        "--category",
        "3",
        "--count",
        "1",
        "--seed",
        "2",
        "-o",
        f"{tmp_path}/one/",
        "--server",
        address,
    )
    (picture,) = (tmp_path / "one").iterdir()
    (inferred,) = json.loads(call("infosink", "infer", picture, "--json", "--server", address))["images"]
    assert sum(inferred["category_probability"]) == pytest.approx(1, abs=1e-5)
    assert len(inferred["style_mean"]) == len(inferred["style_std"]) == 2
    assert all(-1 < mean < 1 for mean in inferred["style_mean"])


def test_a_batch_is_every_label_in_turn_and_the_same_as_single_draws(address, tmp_path):
    call("infosink", "batch", "--count", "300", "--seed", "5", "-o", tmp_path / "batch.npz", "--server", address)
    with np.load(tmp_path / "batch.npz") as arrays, Client(address) as client:
        labels = sorted({category.label for category in client.model().model.latent_space.categories} - {""}, key=int)
        assert list(arrays["label"]) == [labels[i % len(labels)] for i in range(300)]
        for index in (0, 71, 299):
            alone = client.sample(1, label=labels[index % len(labels)], seed=5, first_index=index)
            np.testing.assert_array_equal(alone.samples[0, :, :, 0], arrays["samples"][index])


def test_the_encoder_of_another_run_is_refused(run):
    other = Path(__file__).parent / "compatibility" / "schema-1" / "q.onnx"
    arguments = [BIN / "infosink-serve", "--model", run / "gen.onnx", "--encoder", other, "--port", "0"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "checkpoint" in done.stderr
