"""Servers that do nothing but answer: what gRPC alone costs.

usage: python -m benchmarks.serving.echo sync|asyncio|uvloop [--work MILLISECONDS]

/echo.Echo/Bytes answers with as many bytes as the request's first four say. /echo.Echo/Work does so too once it has had
its turn at a resource that only one call has at a time, for --work milliseconds in which the interpreter is free: a
stand-in for a model. The sync server has the thread pool of 32 that is usual.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

KINDS = ("sync", "asyncio", "uvloop")
THREADS = 32
BYTES, WORK = "/echo.Echo/Bytes", "/echo.Echo/Work"
OPTIONS = [("grpc.so_reuseport", 0)]


def echo_request(size: int, reply: int) -> bytes:
    """A request of `size` bytes, at least four, that asks for `reply` bytes."""
    return struct.pack("<I", reply).ljust(size, b"\0")


def _reply(request: bytes) -> bytes:
    return bytes(struct.unpack_from("<I", request)[0])


def _handlers(answer: Callable[..., object], work: Callable[..., object]) -> grpc.GenericRpcHandler:
    methods = {"Bytes": grpc.unary_unary_rpc_method_handler(answer), "Work": grpc.unary_unary_rpc_method_handler(work)}
    return grpc.method_handlers_generic_handler("echo.Echo", methods)


def serve_sync(seconds: float) -> None:
    """Serves from a pool of threads until the process is ended."""
    turn = threading.Lock()

    def answer(request: bytes, _context: object) -> bytes:
        return _reply(request)

    def work(request: bytes, _context: object) -> bytes:
        with turn:
            time.sleep(seconds)
        return _reply(request)

    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(answer, work),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"echo on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


async def serve_asyncio(seconds: float) -> None:
    """Serves from one event loop until the process is ended."""
    turn = asyncio.Lock()

    async def answer(request: bytes, _context: object) -> bytes:
        return _reply(request)

    async def work(request: bytes, _context: object) -> bytes:
        async with turn:
            await asyncio.to_thread(time.sleep, seconds)
        return _reply(request)

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(answer, work),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--work", type=float, default=10)
    arguments = parser.parse_args()
    seconds = arguments.work / 1000
    if arguments.kind == "sync":
        serve_sync(seconds)
    elif arguments.kind == "asyncio":
        asyncio.run(serve_asyncio(seconds))
    else:
        import uvloop

        uvloop.run(serve_asyncio(seconds))


if __name__ == "__main__":
    main()
