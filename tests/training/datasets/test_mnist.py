"""MNIST as the networks see it, and IDX files of one's own."""

import gzip
import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from infosink.training.datasets import Dataset, DatasetError, ImageFrame, open_dataset


@pytest.fixture(scope="module")
def mnist(mnist_directory) -> Dataset:
    return open_dataset("mnist")


def raw(directory: Path, name: str) -> np.ndarray:
    header = 16 if "idx3" in name else 8
    return np.fromfile(directory / name, np.uint8)[header:]


def test_opening_from_the_cache_takes_less_than_a_second_of_the_processor(mnist):
    start = time.process_time()
    open_dataset("mnist")
    assert time.process_time() - start < 1


def test_every_test_image_is_its_raw_bytes_padded_and_scaled(mnist, mnist_directory):
    levels = raw(mnist_directory, "t10k-images-idx3-ubyte").reshape(10_000, 1, 28, 28)
    expected = np.full((10_000, 1, 32, 32), -1, np.float32)
    expected[:, :, 2:30, 2:30] = levels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    batches = list(mnist.batches("test", 3_000))
    assert [len(samples) for samples, _ in batches] == [3_000, 3_000, 3_000, 1_000]
    samples = torch.cat([samples for samples, _ in batches])
    assert samples.dtype == torch.float32
    np.testing.assert_array_equal(samples.numpy(), expected)
    assert (samples.min(), samples.max()) == (-1, 1)
    labels = torch.cat([labels for _, labels in batches])
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels.numpy(), raw(mnist_directory, "t10k-labels-idx1-ubyte"))
    assert [mnist.label_names[label] for label in labels[:5]] == ["7", "2", "1", "0", "4"]


def test_training_batches_go_through_all_sixty_thousand(mnist, mnist_directory):
    labels = torch.cat([labels for _, labels in mnist.batches("training", 7_001)])
    np.testing.assert_array_equal(labels.numpy(), raw(mnist_directory, "train-labels-idx1-ubyte"))


def test_draws_are_training_images_and_repeat_with_the_generator(mnist, mnist_directory):
    first = mnist.draw(64, torch.Generator().manual_seed(3))
    assert torch.equal(first, mnist.draw(64, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, mnist.draw(64, torch.Generator().manual_seed(4)))
    assert first.shape == (64, *mnist.sample_shape)
    training = {image.tobytes() for image in raw(mnist_directory, "train-images-idx3-ubyte").reshape(-1, 784)}
    levels = ((first[:, 0, 2:30, 2:30] + 1) * 127.5).round().to(torch.uint8).numpy()
    assert all(image.tobytes() in training for image in levels)


def test_images_are_kept_as_bytes_in_their_native_frame(mnist):
    assert mnist.training.pixels.dtype == torch.uint8
    assert mnist.training.pixels.shape == (60_000, 1, 28, 28)
    assert mnist.frame == ImageFrame(1, 32, 32, 2, 2, 2, 2, 0)
    assert (mnist.frame.native_height, mnist.frame.native_width) == (28, 28)


def test_moving_to_a_device_moves_everything(mnist):
    moved = mnist.to(torch.device("meta"))
    samples, labels = next(moved.batches("test", 5))
    assert (samples.device.type, labels.device.type) == ("meta", "meta")
    assert moved.training.pixels.device.type == "meta"


def test_the_description_is_json_with_the_digests(mnist):
    facts = json.loads(json.dumps(mnist.describe()))
    assert facts["source"] == "MNIST"
    assert (facts["training_samples"], facts["test_samples"]) == (60_000, 10_000)
    assert facts["sha256"]["t10k-labels-idx1-ubyte"].startswith("ff7bcfd4")


def test_an_empty_batch_is_refused(mnist):
    with pytest.raises(DatasetError, match="0 samples"):
        mnist.batches("test", 0)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def own() -> dict[str, bytes]:
    """Images of one's own in MNIST's format, 12 for training and 5 for testing."""
    random = np.random.default_rng(0)
    files = {}
    for split, count in (("train", 12), ("t10k", 5)):
        files[f"{split}-images-idx3-ubyte"] = idx(random.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{split}-labels-idx1-ubyte"] = idx(np.arange(count, dtype=np.uint8) % 10)
    return files


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, contents in files.items():
        (directory / name).write_bytes(contents)
    return directory


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(contents) for name, contents in files.items()}


def dotted(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace("-idx", ".idx"): contents for name, contents in files.items()}


@pytest.mark.parametrize("named", [dict, packed, dotted, lambda files: packed(dotted(files))])
def test_own_files_are_read_under_every_usual_name(tmp_path, own, named, caplog):
    data = open_dataset("mnist", data_directory=write(tmp_path, named(own)))
    samples, labels = next(data.batches("test", 100))
    expected = np.frombuffer(own["t10k-images-idx3-ubyte"], np.uint8, offset=16).reshape(5, 28, 28)
    np.testing.assert_array_equal(((samples[:, 0, 2:30, 2:30] + 1) * 127.5).round().numpy(), expected)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert "Not MNIST's original files" in caplog.text
    assert data.describe()["source"] != "MNIST"


def test_the_originals_are_recognised_anywhere(tmp_path, mnist_directory, caplog):
    for path in mnist_directory.glob("*-ubyte"):
        (tmp_path / path.name).symlink_to(path)
    assert open_dataset("mnist", data_directory=tmp_path).describe()["source"] == "MNIST"
    assert not caplog.text


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (IMAGES, lambda good: b"", "first bytes are nothing"),
        (IMAGES, lambda good: b"\x89PNG" + good[4:], "first bytes are 89 50 4e 47"),
        (IMAGES, lambda good: bytes([0, 0, 13]) + good[3:], "first bytes are 00 00 0d 03"),
        (IMAGES, lambda good: good[:9], "its header has 16 bytes, the file 9"),
        (IMAGES, lambda good: good[:-1], r"12 × 28 × 28 = 9,408 entries, and 9,407 follow"),
        (IMAGES, lambda good: good + b"\0", r"12 × 28 × 28 = 9,408 entries, and 9,409 follow"),
        (IMAGES, lambda good: good[:4] + b"\xff" * 12 + good[16:], r"entries, and 9,408 follow"),
        (IMAGES, lambda good: idx(np.zeros((0, 28, 28), np.uint8)), "has no entries"),
        (IMAGES, lambda good: idx(np.zeros((12, 32, 32), np.uint8)), "images of 32 × 32 pixels"),
        (LABELS, lambda good: good[:4] + b"\0\0\0\x0b" + good[8:-1], "11 labels for the 12 images"),
        (LABELS, lambda good: good[:-1] + b"\x0a", "the label 10"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, own, name, damage, reason):
    write(tmp_path, own | {name: damage(own[name])})
    with pytest.raises(DatasetError, match=reason) as caught:
        open_dataset("mnist", data_directory=tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda good: good[: len(good) // 2], "ended before the end-of-stream marker"),
        (lambda good: b"plain" + good, "Not a gzipped file"),
        (lambda good: good[:20] + bytes([good[20] ^ 255]) + good[21:], "cannot be used"),
    ],
)
def test_a_damaged_gzip_file_is_named_with_what_is_wrong(tmp_path, own, damage, reason):
    files = packed(own)
    write(tmp_path, files | {f"{IMAGES}.gz": damage(files[f"{IMAGES}.gz"])})
    with pytest.raises(DatasetError, match=reason) as caught:
        open_dataset("mnist", data_directory=tmp_path)
    assert str(tmp_path / f"{IMAGES}.gz") in str(caught.value)


def test_missing_files_are_listed(tmp_path, own):
    del own[IMAGES], own[LABELS]
    with pytest.raises(DatasetError, match=f"lacks {IMAGES}, {LABELS}"):
        open_dataset("mnist", data_directory=write(tmp_path, own))
