"""How many calls may be open at once."""

import asyncio
from typing import Any

import grpc
import pytest
from infosink.serving.calls.door import Door

LIMIT = 60
"""Seconds after which a test that waits has failed."""


def test_one_call_too_many_is_refused_and_the_next_is_not() -> None:
    async def ask() -> None:
        entered, answered = asyncio.Semaphore(0), asyncio.Event()

        async def wait(request: bytes, _context: Any) -> bytes:
            entered.release()
            await answered.wait()
            return request

        handler = grpc.unary_unary_rpc_method_handler(wait)
        server = grpc.aio.server(interceptors=[Door(2)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Wait": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test/Wait")
            waiting = [asyncio.ensure_future(call(b"first", timeout=LIMIT)) for _ in range(2)]
            for _ in waiting:
                await entered.acquire()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"too many", timeout=LIMIT)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details().startswith("2 calls are open, as many as this server allows at once")
            answered.set()
            assert await asyncio.gather(*waiting) == [b"first"] * 2
            assert await call(b"next", timeout=LIMIT) == b"next"
        await server.stop(0)

    asyncio.run(ask())
