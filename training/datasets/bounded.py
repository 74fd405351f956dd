"""Reading of files that may be larger than they should be."""

from typing import Protocol


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class TooLongError(Exception):
    """More bytes than the limit."""


def read_bounded(stream: _Readable, limit: int) -> bytearray:
    """Reads a stream to its end.

    Args:
        stream: What to read.
        limit: The most bytes to accept.

    Returns:
        Everything that the stream held.

    Raises:
        TooLongError: If the stream holds more than `limit` bytes; no more than a mebibyte past it is read.
    """
    contents = bytearray()
    while chunk := stream.read(1 << 20):
        contents += chunk
        if len(contents) > limit:
            raise TooLongError(f"it is longer than {limit:,} bytes")
    return contents
