"""The IDX format of the MNIST files: a big-endian header, then one byte an entry."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from .bounded import TooLongError, read_bounded
from .dataset import DatasetError

_LARGEST_FILE = 1 << 30
# The third byte of the header says what an entry is.
_UNSIGNED_BYTE = 8


def read_idx(path: Path) -> bytearray:
    """Reads an IDX file whole, unpacked where its name ends in .gz.

    Raises:
        DatasetError: If the file cannot be read or unpacked, or is larger than 1 GiB unpacked.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return read_bounded(stream, _LARGEST_FILE)
    except (OSError, EOFError, zlib.error, TooLongError) as error:
        raise _unusable(path, str(error)) from error


def parse_idx(contents: bytearray, dimensions: int, path: Path) -> Tensor:
    """Reads the entries out of an IDX file of unsigned bytes.

    Args:
        contents: The whole file, unpacked. The result shares its memory.
        dimensions: How many dimensions it must have: 3 for images, 1 for labels.
        path: What to call the file in an error.

    Returns:
        The entries, uint8, in the shape that the header states.

    Raises:
        DatasetError: If the header is not that of unsigned bytes in `dimensions` dimensions, or the file is longer or
            shorter than its header states.
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if contents[:4] != magic:
        start = contents[:4].hex(" ") or "nothing"
        raise _unusable(
            path, f"its first bytes are {start}; those of {dimensions}-dimensional IDX are {magic.hex(' ')}"
        )
    header_size = 4 + 4 * dimensions
    if len(contents) < header_size:
        raise _unusable(path, f"its header has {header_size} bytes, the file {len(contents)}")
    shape = struct.unpack_from(f">{dimensions}I", contents, 4)
    stated, found = math.prod(shape), len(contents) - header_size
    if stated != found:
        lengths = " × ".join(map(str, shape))
        raise _unusable(path, f"its header states {lengths} = {stated:,} entries, and {found:,} follow")
    if stated == 0:
        raise _unusable(path, "it has no entries")
    return torch.frombuffer(contents, dtype=torch.uint8, offset=header_size).reshape(shape)


def _unusable(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path} cannot be used: {reason}. Replace it with an undamaged copy.")
