"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, padded to 32 × 32 (LeCun, Cortes and Burges, 1998)."""

import hashlib
import logging
from pathlib import Path

from .dataset import DatasetError, ImageFrame
from .idx import parse_idx, read_idx
from .images import ImageDataset, LabelledPixels
from .mnist_files import (
    MNIST_FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAINING_IMAGES,
    TRAINING_LABELS,
    MnistFile,
    mnist_cache,
    read_or_fetch,
)

_logger = logging.getLogger(__name__)

_FRAME = ImageFrame(
    channels=1, height=32, width=32, padding_top=2, padding_left=2, padding_bottom=2, padding_right=2, background=0
)
_DIGITS = tuple("0123456789")


def open_mnist(data_directory: Path | None = None) -> ImageDataset:
    """Opens MNIST, or data of one's own in the same format.

    Args:
        data_directory: A folder with the four IDX files, unpacked or gzip-compressed, named like
            train-images-idx3-ubyte or train-images.idx3-ubyte (with .gz behind it). They may hold other images than
            MNIST's, any number of them, of 28 × 28 pixels with labels 0 to 9. By default the originals are read from
            the cache, where they are fetched to once.

    Returns:
        The data set, on the CPU.

    Raises:
        DatasetError: If a file is missing, damaged or of another format, or if MNIST could not be fetched.
    """
    if data_directory is None:
        cache = mnist_cache()
        paths = {file: cache / file.name for file in MNIST_FILES}
        contents = read_or_fetch(cache)
    else:
        paths = _find(data_directory)
        contents = {file: read_idx(path) for file, path in paths.items()}
    training = _labelled_pixels(TRAINING_IMAGES, TRAINING_LABELS, contents, paths)
    test = _labelled_pixels(TEST_IMAGES, TEST_LABELS, contents, paths)
    digests = {file.name: hashlib.sha256(contents[file]).hexdigest() for file in MNIST_FILES}
    own = [file.name for file in MNIST_FILES if digests[file.name] != file.sha256]
    if own:
        _logger.warning("Not MNIST's original files, and used as they are: %s in %s.", ", ".join(own), data_directory)
    facts = {"source": "IDX files other than MNIST's" if own else "MNIST", "sha256": digests}
    return ImageDataset("mnist", _FRAME, _DIGITS, training, test, facts)


def _find(directory: Path) -> dict[MnistFile, Path]:
    paths = {}
    for file in MNIST_FILES:
        names = (file.name, file.name.replace("-idx", ".idx"))
        candidates = (directory / f"{name}{suffix}" for name in names for suffix in ("", ".gz"))
        if found := next((path for path in candidates if path.is_file()), None):
            paths[file] = found
    if missing := [file.name for file in MNIST_FILES if file not in paths]:
        raise DatasetError(
            f"{directory} lacks {', '.join(missing)}. Put the four IDX files there, unpacked or as .gz, "
            "or leave out --data-dir to have MNIST fetched."
        )
    return paths


def _labelled_pixels(
    images: MnistFile, labels: MnistFile, contents: dict[MnistFile, bytearray], paths: dict[MnistFile, Path]
) -> LabelledPixels:
    pixels = parse_idx(contents[images], 3, paths[images])
    digits = parse_idx(contents[labels], 1, paths[labels])
    count, height, width = pixels.shape
    if (height, width) != (28, 28):
        raise DatasetError(
            f"{paths[images]} holds images of {height} × {width} pixels. Bring 28 × 28, "
            "or keep the images as files and use the data set image-folder."
        )
    if len(digits) != count:
        raise DatasetError(
            f"{paths[labels]} holds {len(digits):,} labels for the {count:,} images of {paths[images]}. "
            "Bring one label for each image."
        )
    if digits.max() > 9:
        raise DatasetError(f"{paths[labels]} holds the label {int(digits.max())}. Bring labels from 0 to 9.")
    return LabelledPixels(pixels.unsqueeze(1), digits.long())
