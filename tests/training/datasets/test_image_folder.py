"""Folders of images, made here with Pillow."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from infosink.training.datasets import DatasetError, ImageFrame, open_dataset
from PIL import Image


def grey(count: int = 10, side: int = 32) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8))


def save(path: Path, levels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path)


def fill(folder: Path, images: list[np.ndarray], suffix: str = ".png") -> Path:
    for position, levels in enumerate(images):
        save(folder / f"{position:03}{suffix}", levels)
    return folder


def levels_of(samples: torch.Tensor) -> np.ndarray:
    return ((samples + 1) * 127.5).round().to(torch.uint8).numpy()


def test_grey_images_of_the_right_size_keep_every_level_and_every_tenth_is_held_out(tmp_path):
    images = grey(25)
    data = open_dataset("image-folder", data_directory=fill(tmp_path, images))
    assert data.frame == ImageFrame(channels=1, height=32, width=32)
    assert data.label_names == ()
    training, labels = next(data.batches("training", 100))
    assert labels is None
    test, _ = next(data.batches("test", 100))
    np.testing.assert_array_equal(levels_of(test)[:, 0], [images[9], images[19]])
    np.testing.assert_array_equal(levels_of(training)[:, 0], [im for i, im in enumerate(images) if i not in (9, 19)])
    assert data.training.pixels.dtype == torch.uint8
    assert data.draw(7, torch.Generator().manual_seed(0)).shape == (7, 1, 32, 32)


def test_one_coloured_image_makes_all_of_them_coloured(tmp_path):
    fill(tmp_path, grey())
    save(tmp_path / "011.png", np.full((32, 32, 3), (255, 128, 0), np.uint8))
    data = open_dataset("image-folder", data_directory=tmp_path)
    assert data.sample_shape == (3, 32, 32)
    training, _ = next(data.batches("training", 100))
    np.testing.assert_array_equal(levels_of(training)[-1, :, 0, 0], [255, 128, 0])
    np.testing.assert_array_equal(levels_of(training)[0, 0], levels_of(training)[0, 2])


def test_rgb_files_without_colour_are_grey(tmp_path):
    images = grey()
    fill(tmp_path, [np.stack([levels] * 3, axis=-1) for levels in images])
    data = open_dataset("image-folder", data_directory=tmp_path)
    assert data.sample_shape == (1, 32, 32)
    np.testing.assert_array_equal(data.training.pixels[0, 0].numpy(), images[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_can_be_chosen(tmp_path, channels):
    fill(tmp_path, [np.full((32, 32, 3), (255, 0, 0), np.uint8)] * 10)
    data = open_dataset("image-folder", data_directory=tmp_path, channels=channels)
    expected = [76] if channels == 1 else [255, 0, 0]
    np.testing.assert_array_equal(data.training.pixels[0, :, 0, 0].numpy(), expected)


def test_sub_folders_are_labels(tmp_path):
    images = grey(30)
    for position, levels in enumerate(images):
        parent = tmp_path / ("cat", "dog", "owl")[position // 10]
        save((parent / "deeper" if position == 0 else parent) / f"{position:02}.png", levels)
    (tmp_path / "empty").mkdir()
    data = open_dataset("image-folder", data_directory=tmp_path)
    assert data.label_names == ("cat", "dog", "owl")
    _, labels = next(data.batches("training", 100))
    assert labels.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    _, held_out = next(data.batches("test", 100))
    assert held_out.tolist() == [0, 1, 2]


def test_images_both_in_the_folder_and_below_are_refused(tmp_path):
    fill(tmp_path, grey())
    save(tmp_path / "cat" / "000.png", grey(1)[0])
    with pytest.raises(DatasetError, match="Move all of them into sub-folders, or none"):
        open_dataset("image-folder", data_directory=tmp_path)


@pytest.mark.parametrize(("height", "width"), [(40, 100), (100, 40)])
def test_the_centred_square_is_taken(tmp_path, height, width):
    levels = np.zeros((height, width), np.uint8)
    middle = tuple(slice((side - 40) // 2, (side + 40) // 2) for side in (height, width))
    levels[middle] = 200
    data = open_dataset("image-folder", data_directory=fill(tmp_path, [levels] * 10))
    # Resampling mixes a little of the surroundings into the outermost pixels.
    assert (data.training.pixels.int() - 200).abs().max() <= 6
    assert (data.training.pixels[..., 3:-3, 3:-3] == 200).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".bmp", ".gif"])
def test_every_format_is_read(tmp_path, suffix):
    data = open_dataset("image-folder", data_directory=fill(tmp_path, [np.full((50, 50), 90, np.uint8)] * 10, suffix))
    assert (data.training.pixels.int() - 90).abs().max() <= 2


def first_of(folder: Path, save_first: Callable[[Path], None]) -> np.ndarray:
    """The levels of one image as it comes out of a folder where it is the first of ten."""
    fill(folder, [np.zeros((32, 32), np.uint8)] * 10)
    save_first(folder / "000.png")
    return open_dataset("image-folder", data_directory=folder).training.pixels[0].numpy()


def test_transparency_is_laid_over_white(tmp_path):
    levels = np.zeros((32, 32, 4), np.uint8)
    levels[:16, :, 3] = 255
    pixels = first_of(tmp_path, lambda path: save(path, levels))
    assert (pixels[:, :16] == 0).all()
    assert (pixels[:, 16:] == 255).all()


def test_sixteen_bit_grey_is_scaled(tmp_path):
    pixels = first_of(tmp_path, lambda path: save(path, np.full((32, 32), 0x80FF, np.uint16)))
    assert (pixels == 0x80).all()


def test_a_palette_is_resolved_before_resizing(tmp_path):
    image = Image.new("P", (64, 64))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 64, 64))
    pixels = first_of(tmp_path, image.save)
    assert (pixels == np.array([255, 0, 0])[:, None, None]).all()


def test_photographs_are_turned_upright(tmp_path):
    levels = np.zeros((32, 32), np.uint8)
    levels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = first_of(tmp_path, lambda path: Image.fromarray(levels).save(path, exif=exif))
    np.testing.assert_array_equal(pixels[0], levels[::-1])


def test_links_out_of_the_folder_and_hidden_files_are_passed_over(tmp_path, caplog):
    outside = fill(tmp_path / "outside", grey())
    folder = fill(tmp_path / "inside", grey())
    (folder / "aaa.png").symlink_to(outside / "000.png")
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    (folder / "bbb.png").symlink_to(folder / "000.png")
    save(folder / ".hidden" / "000.png", grey(1)[0])
    (folder / "notes.txt").write_text("no image")
    os.mkfifo(folder / "pipe.png")
    data = open_dataset("image-folder", data_directory=folder)
    assert len(data.training.pixels) + len(data.test.pixels) == 11
    assert "aaa.png leads out of" in caplog.text


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT", b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda good: b"", "no PNG, JPEG"),
        (lambda good: b"%PDF-1.4", "no PNG, JPEG"),
        (lambda good: good[: len(good) // 2], "truncated"),
        (lambda good: good[:-40] + bytes(40), "cannot be used"),
        (lambda good: png_header(10_000, 5_001), "10000 × 5001 pixels; 50,000,000 are the most"),
        (lambda good: png_header(30_000, 30_000), "exceeds limit"),
        (lambda good: good + bytes(64 << 20), "longer than 67,108,864 bytes"),
    ],
)
def test_an_unreadable_image_is_named(tmp_path, damage, reason):
    fill(tmp_path, grey())
    path = tmp_path / "005.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=reason) as caught:
        open_dataset("image-folder", data_directory=tmp_path)
    assert str(path) in str(caught.value)


def test_a_folder_that_is_empty_or_missing_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="has 0 images"):
        open_dataset("image-folder", data_directory=tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        open_dataset("image-folder", data_directory=tmp_path / "missing")
    with pytest.raises(DatasetError, match="--data-dir"):
        open_dataset("image-folder")


def test_the_description_tells_one_folder_from_another(tmp_path):
    first = open_dataset("image-folder", data_directory=fill(tmp_path / "a", grey()))
    copy = open_dataset("image-folder", data_directory=fill(tmp_path / "b", grey()))
    other = open_dataset("image-folder", data_directory=fill(tmp_path / "c", grey(11)))
    assert json.loads(json.dumps(first.describe())) == copy.describe()
    assert first.describe()["sha256"] != other.describe()["sha256"]
