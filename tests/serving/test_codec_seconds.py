"""A call's codec time is what its messages took to read and make, wherever that was done."""

import asyncio
import threading
import time

from infosink.serving.calls import call_record
from infosink.serving.calls.call_record import CallRecord
from infosink.serving.calls.codec import LARGE_BYTES, beside, parsed
from infosink.v1.sampling_service_pb2 import InferCodesRequest, PngImages

LIMIT = 60
THREADS = 4
"""As many as there may be."""


def test_reading_a_large_message_is_in_it() -> None:
    request = InferCodesRequest(png=PngImages(images=[bytes(8)] * 20_000))
    assert request.ByteSize() >= LARGE_BYTES
    record = CallRecord()

    async def read() -> InferCodesRequest:
        call_record.bind(record)
        return await parsed(InferCodesRequest.FromString, request.SerializeToString())

    assert asyncio.run(read()) == request
    assert 0 < record.codec_seconds < time.monotonic() - record.started


def test_waiting_for_a_thread_is_not_in_it() -> None:
    record = CallRecord()
    free = threading.Event()

    async def make() -> float:
        others = [asyncio.ensure_future(beside(LARGE_BYTES, free.wait, LIMIT)) for _ in range(THREADS)]
        await asyncio.sleep(0)
        call_record.bind(record)
        made = asyncio.ensure_future(beside(LARGE_BYTES, bytes, 1))
        while time.monotonic() < record.started + 0.1:
            await asyncio.sleep(0)
        released = time.monotonic()
        free.set()
        assert await made == b"\0"
        await asyncio.gather(*others)
        return time.monotonic() - released

    spent = asyncio.run(make())
    assert 0 < record.codec_seconds <= spent
