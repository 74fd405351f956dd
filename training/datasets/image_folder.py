"""A folder of images of one's own, cropped to squares of 32 × 32 pixels."""

import hashlib
import io
import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .bounded import read_bounded
from .dataset import DatasetError, ImageFrame
from .images import ImageDataset, LabelledPixels

_logger = logging.getLogger(__name__)

_SIDE = 32
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_DECODERS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_TEST_INTERVAL = 10
_MOST_IMAGES = 500_000  # 1.5 GB in memory
_LARGEST_FILE = 64 << 20  # bytes
_MOST_PIXELS = 50_000_000


def open_image_folder(data_directory: Path | None = None, channels: Literal[1, 3] | None = None) -> ImageDataset:
    """Opens the PNG, JPEG, WebP, BMP and GIF files in a folder and its sub-folders.

    The largest centred square of each image is resized to 32 × 32 pixels: the aspect ratio is kept and nothing is
    padded. Photographs are turned upright first, transparency is laid over white, and of an animation the first frame
    is taken.

    Images in sub-folders are labelled with the name of their first-level sub-folder; images that lie directly in the
    folder have no labels. Files are ordered by their path within the folder, and the 10th, 20th, ... are held out for
    testing. Hidden files and folders, files with other suffixes, linked folders, and links to files outside of the
    folder are passed over.

    Args:
        data_directory: The folder.
        channels: 1 for grey, 3 for RGB; by default RGB if any image is coloured.

    Returns:
        The data set, on the CPU.

    Raises:
        DatasetError: If the folder is missing, has fewer than 10 or more than 500,000 images, or has images both
            directly in it and in sub-folders; or if an image is unreadable, larger than 50 million pixels, or its
            file larger than 64 MiB.
    """
    if data_directory is None:
        raise DatasetError("The data set image-folder needs a folder of images. Pass it as --data-dir.")
    paths = _find_images(data_directory)
    label_names, labels = _read_labels(paths, data_directory)
    pixels, digest = _read_images(paths, data_directory, channels)
    held_out = torch.arange(len(paths)) % _TEST_INTERVAL == _TEST_INTERVAL - 1
    training, test = (
        LabelledPixels(pixels[chosen], None if labels is None else labels[chosen]) for chosen in (~held_out, held_out)
    )
    frame = ImageFrame(channels=pixels.shape[1], height=_SIDE, width=_SIDE)
    return ImageDataset("image-folder", frame, label_names, training, test, {"source": "images", "sha256": digest})


def _find_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder. Pass the folder with the images as --data-dir.")
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        candidates = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in candidates if path.suffix.lower() in _SUFFIXES and _lies_within(path, folder)]
        if len(found) > _MOST_IMAGES:
            raise DatasetError(f"{folder} has more than {_MOST_IMAGES:,} images. Pass a smaller folder.")
    if len(found) < _TEST_INTERVAL:
        raise DatasetError(
            f"{folder} has {len(found)} images ({', '.join(_SUFFIXES)}); at least {_TEST_INTERVAL} are needed, "
            f"since every {_TEST_INTERVAL}th is held out. Add more."
        )
    return sorted(found)


def _lies_within(path: Path, folder: Path) -> bool:
    """Says whether a path leads to a file inside the folder, through links or not."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        _logger.warning("%s leads out of %s and is passed over.", path, folder)
        return False
    return path.is_file()


def _refuse_folder(error: OSError) -> NoReturn:
    raise DatasetError(f"{error.filename} cannot be listed: {error.strerror}. Make it readable.") from error


def _read_labels(paths: list[Path], folder: Path) -> tuple[tuple[str, ...], Tensor | None]:
    nested = [path for path in paths if path.parent != folder]
    if not nested:
        return (), None
    if len(nested) < len(paths):
        direct = next(path for path in paths if path.parent == folder)
        raise DatasetError(
            f"{folder} has images directly in it, such as {direct.name}, and others in sub-folders, which are labels. "
            "Move all of them into sub-folders, or none."
        )
    labels = [path.relative_to(folder).parts[0] for path in paths]
    label_names = tuple(sorted(set(labels)))
    for name in label_names:
        if not name.isprintable():
            raise DatasetError(f"The sub-folder {name!r} cannot be a label. Rename it to printable characters.")
    index = {name: position for position, name in enumerate(label_names)}
    return label_names, torch.tensor([index[label] for label in labels])


def _read_images(paths: list[Path], folder: Path, channels: Literal[1, 3] | None) -> tuple[Tensor, str]:
    """Reads the images, uint8 of shape (count, channels, 32, 32), and one SHA-256 over their paths and files."""
    mode = "L" if channels == 1 else "RGB"
    pixels = np.empty((len(paths), len(mode), _SIDE, _SIDE), dtype=np.uint8)
    digest = hashlib.sha256()
    coloured = False
    with warnings.catch_warnings(), ThreadPoolExecutor() as executor:
        # Pillow warns of oddities that it gets past, and of sizes that are refused here anyway.
        warnings.simplefilter("ignore")
        read = executor.map(partial(_read_image, mode=mode), paths)
        for path, image_pixels, (image, file_digest) in zip(paths, pixels, read, strict=True):
            image_pixels[:] = image
            coloured = coloured or bool((image != image[:1]).any())
            digest.update(os.fsencode(path.relative_to(folder).as_posix()) + b"\0" + file_digest)
    if channels is None and not coloured:
        pixels = pixels[:, :1].copy()
    return torch.from_numpy(pixels), digest.hexdigest()


def _read_image(path: Path, mode: str) -> tuple[npt.NDArray[np.uint8], bytes]:
    try:
        with path.open("rb") as stream:
            contents = read_bounded(stream, _LARGEST_FILE)
        square = _decode(contents, mode)
    except UnidentifiedImageError as error:
        raise _unreadable(path, f"it is no {', '.join(_DECODERS)} image") from error
    except Exception as error:  # decoders meet damaged files with exceptions of many kinds
        raise _unreadable(path, str(error)) from error
    channels_last = np.asarray(square).reshape(_SIDE, _SIDE, -1)
    return channels_last.transpose(2, 0, 1), hashlib.sha256(contents).digest()


def _decode(contents: bytearray, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(contents), formats=_DECODERS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"it has {image.width} × {image.height} pixels; {_MOST_PIXELS:,} are the most")
        return ImageOps.fit(_upright(image).convert(mode), (_SIDE, _SIDE), method=Image.Resampling.LANCZOS)


def _upright(image: Image.Image) -> Image.Image:
    """Returns the image as a viewer shows it: upright, in 8 bits, on white."""
    image.draft(None, (4 * _SIDE, 4 * _SIDE))  # a large JPEG is decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image


def _unreadable(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path} cannot be used: {reason}. Repair the file or take it out of the folder.")
