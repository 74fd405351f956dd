"""Large messages, made and read beside the event loop, so that small ones need not wait for them."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from google.protobuf.message import DecodeError

from . import call_record
from .field_limit import check_field_count, malformed

P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 2**17
"""From here on the event loop would be held up for longer than a thread's turn takes."""

_pool = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 1)), thread_name_prefix="codec")


async def parsed(parse: Callable[[bytes], R], data: bytes) -> R:
    """The message that `parse`, a message class's FromString, reads; a large one is checked and read in a thread.

    Raises:
        InvalidRequestError: If it holds more fields than any request needs, or is no such message.
    """

    def checked() -> R:
        check_field_count(data, parse.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # a class method
        return parse(data)

    try:
        if len(data) < LARGE_BYTES:
            return parse(data)
        return await beside(len(data), checked)
    except DecodeError:
        raise malformed() from None


async def beside(size: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns: in a thread where `size`, the bytes that it handles, is large.

    The time that it takes is the call's codec time; to wait for a thread is not.
    """
    record = call_record.current()

    def timed() -> R:
        started = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            record.codec_seconds += time.monotonic() - started

    if size < LARGE_BYTES:
        return timed()
    return await asyncio.get_running_loop().run_in_executor(_pool, timed)
