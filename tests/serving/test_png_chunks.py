"""A PNG file is read for its picture alone, whatever else it holds."""

import struct
import zlib

import numpy as np
import pytest
from infosink.serving.errors import InvalidRequestError
from infosink.serving.models.frames import Frames
from infosink.serving.sampling import png
from infosink.v1.model_pb2 import ImageSpace

FRAMES = Frames(ImageSpace(channels=1, height=9, width=7, minimum=-1, maximum=1))
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 1), np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
MUCH = zlib.compress(bytes(2**21))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 9, 8, 0, 0, 0, 0))
DATA = chunk(b"IDAT", zlib.compress(ROWS))
END = chunk(b"IEND")


def file(*, before: bytes = b"", data: bytes = DATA, after: bytes = b"") -> bytes:
    return SIGNATURE + HEADER + before + data + after + END


def assert_read(image: bytes) -> None:
    (pixels,) = png.decode([image], FRAMES)
    np.testing.assert_array_equal(pixels, PIXELS)


def assert_refused(image: bytes, reason: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        png.decode([image], FRAMES)
    assert [violation.reason for violation in caught.value.violations] == [reason]


BESIDE = {
    "compressed text": chunk(b"zTXt", b"Comment\0\0" + MUCH),
    "compressed international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + MUCH),
    "a compressed profile": chunk(b"iCCP", b"profile\0\0" + MUCH),
    "text that bears a name of ours": chunk(b"tEXt", b"transparency\0x"),
    "frames that never come": chunk(b"acTL", bytes(8)),
    "a density cut short": chunk(b"pHYs", b"\0"),
    "something unheard of": chunk(b"zzZz", b"zz"),
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("where", ["before", "after"])
def test_what_is_beside_the_picture_is_not_read(what: str, where: str) -> None:
    assert_read(file(**{where: BESIDE[what]}))


def test_what_follows_the_end_is_not_read() -> None:
    assert_read(file() + BESIDE["compressed text"] + b"no chunk")


def test_palette_and_transparency_are_of_the_picture() -> None:
    indexed = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 9, 8, 3, 0, 0, 0))
    # All pixels show entry 1: white, and seen through to the black behind it.
    image = b"".join([
        SIGNATURE, indexed, chunk(b"PLTE", bytes(3) + b"\xff" * 3), chunk(b"tRNS", b"\xff\x00"),
        chunk(b"IDAT", zlib.compress((b"\0" + b"\1" * 7) * 9)), END,
    ])  # fmt: skip
    (pixels,) = png.decode([image], FRAMES)
    assert (pixels == 0).all()


def test_data_in_a_chunk_for_each_row_is_read() -> None:
    stream = zlib.compressobj()
    rows = [stream.compress(ROWS[8 * row : 8 * row + 8]) + stream.flush(zlib.Z_SYNC_FLUSH) for row in range(9)]
    assert_read(file(data=b"".join(chunk(b"IDAT", row) for row in [*rows, stream.flush()])))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_more_chunks_than_any_picture_needs_are_refused(kind: bytes) -> None:
    again = HEADER if kind == b"IHDR" else chunk(kind)
    assert_refused(file(before=again * 80), "LIMIT_EXCEEDED", "83 chunks of picture, over the limit of 73")


NO_CHUNKS = {
    "no end": file()[: -len(END)],
    "an end cut short": file()[:-1],
    "nothing but a header": SIGNATURE + HEADER,
    "a chunk longer than the file": file(before=struct.pack(">I", 2**31) + b"tEXt"),
    "a chunk that ends within another": file(before=struct.pack(">I", 3) + chunk(b"tEXt", b"text")[4:]),
    "a name that is none": file(before=chunk(b"\0\1\2\3")),
    "half a chunk": SIGNATURE + HEADER + b"\0\0\0",
}


@pytest.mark.parametrize("what", NO_CHUNKS)
def test_what_is_not_made_of_chunks_is_refused(what: str) -> None:
    assert_refused(NO_CHUNKS[what], "IMAGE_UNREADABLE", "image 0 is a truncated or corrupt PNG: send the whole file")
