"""PNG files to pixels and back, trusting nothing a client sends."""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import InvalidRequestError
from ..models.frames import Frames, Pixels, largest_encoding
from .faults import Faults

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8s4x4sIIB")
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_PICTURE = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
_SPARE_CHUNKS = 64
"""Beside one for each row, which is as finely as pictures are cut."""


def encode(pixels: Pixels) -> list[bytes]:
    """One PNG file for each of uint8 [batch, height, width, channels], grey or colour by `channels`."""
    return [_encode_one(image) for image in pixels]


def _encode_one(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def decode(files: Sequence[bytes], frames: Frames) -> list[Pixels]:
    """Reads each file as an image of the model's channels, in the native or the model's frame.

    Any 8-bit or shallower PNG is read: colour becomes grey by its luma (ITU-R 601) for a model of grey images, grey
    becomes colour for a model of colour images, and transparent pixels show the background level.

    Returns:
        For each file uint8 [height, width, channels].

    Raises:
        InvalidRequestError: If a file is not a PNG, is truncated or corrupt, has 16 bits a channel, or is not of either
            frame's size; depth and size are read from the header, before anything is decoded.
    """
    images, faults = [], Faults()
    for position, file in enumerate(files):
        with faults:
            try:
                images.append(_decode_one(file, frames))
            except _UnusableError as error:
                field = f"png.images[{position}]"
                raise InvalidRequestError(f"image {position} {error}", reason=error.reason, field=field) from None
    faults.refuse()
    return images


class _UnusableError(Exception):
    """A file is no image for this model; the message says why, and what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _decode_one(file: bytes, frames: Frames) -> Pixels:
    size = _check_header(file, frames)
    # A fair file of this size has at most 16-bit RGBA; twice that leaves room for its metadata.
    limit = 2 * largest_encoding(*frames.model_size, 8) + 65536
    if len(file) > limit:
        raise _UnusableError(
            "LIMIT_EXCEEDED", f"has {len(file)} bytes, over the limit of {limit} for its size: remove its metadata"
        )
    try:
        return _read(_picture_alone(file, size[0] + _SPARE_CHUNKS), size, frames)
    except _UnusableError:
        raise
    except Exception as error:
        # Whatever a decoder raises on bytes from outside, the bytes are at fault.
        raise _UnusableError("IMAGE_UNREADABLE", "is a truncated or corrupt PNG: send the whole file") from error


def _check_header(file: bytes, frames: Frames) -> tuple[int, int]:
    """The height and width that the header states."""
    if not file.startswith(_SIGNATURE):
        message = f"is not a PNG file ({len(file)} bytes): send PNG files, or a tensor"
        raise _UnusableError("IMAGE_UNREADABLE", message)
    if len(file) < _HEADER.size:
        raise _UnusableError("IMAGE_UNREADABLE", f"is a truncated PNG of {len(file)} bytes: send the whole file")
    _, kind, width, height, bit_depth = _HEADER.unpack_from(file)
    if kind != b"IHDR":
        raise _UnusableError("IMAGE_UNREADABLE", "is a corrupt PNG: it does not begin with its header")
    if (height, width) not in frames.sizes:
        accepted = " or ".join(f"{w}x{h}" for h, w in frames.sizes)
        message = f"is {width}x{height} pixels, but must be {accepted}: resize or crop it"
        raise _UnusableError("SHAPE_MISMATCH", message)
    # Pillow would keep the high byte of colour, and clip grey.
    if bit_depth == 16:
        raise _UnusableError("DATA_TYPE_MISMATCH", "is a 16-bit PNG: convert it to 8 bits a channel")
    return height, width


def _picture_alone(file: bytes, limit: int) -> bytes:
    """The file without the chunks on which no pixel depends: Pillow would inflate their texts, a thousandfold.

    Raises:
        _UnusableError: If the picture alone has more chunks than `limit`.
        struct.error, ValueError: If it is not chunks up to an end.
    """
    chunks = []
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(file, position)
        end = position + _CHUNK.size + length + _CHECKSUM_BYTES
        if end > len(file) or not kind.isalpha():
            raise ValueError("no chunk")
        if kind in _PICTURE:
            chunks.append(file[position:end])
        position = end
    if len(chunks) > limit:
        message = f"has {len(chunks)} chunks of picture, over the limit of {limit} for its size: save it anew"
        raise _UnusableError("LIMIT_EXCEEDED", message)
    return _SIGNATURE + b"".join(chunks)


def _read(file: bytes, size: tuple[int, int], frames: Frames) -> Pixels:
    height, width = size
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        # A second header may follow the one that was checked; Pillow heeds the last, and nothing is allocated yet.
        if image.size != (width, height):
            stated = f"{width}x{height} and {image.width}x{image.height} pixels"
            raise _UnusableError("IMAGE_UNREADABLE", f"is a corrupt PNG: its headers state {stated}")
        image.load()
        return np.asarray(_over_background(image, frames)).reshape(height, width, frames.space.channels)


def _over_background(image: Image.Image, frames: Frames) -> Image.Image:
    mode = "L" if frames.space.channels == 1 else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    level = frames.space.background
    background = Image.new("RGBA", image.size, (level, level, level, 255))
    return Image.alpha_composite(background, image.convert("RGBA")).convert(mode)
