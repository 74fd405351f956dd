"""GET /metrics over HTTP.

prometheus_client's own server answers every path, in as many threads as it is asked, for as long as a client takes to
ask. This one shares the event loop, and gives each of a few connections a few seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client import generate_latest

from ..errors import StartupError
from .metrics import Metrics

_CONNECTIONS = 16
_SECONDS = 5
_HEAD_BYTES = 8192
_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def serve_metrics(metrics: Metrics, host: str, port: int) -> AsyncIterator[str]:
    """Answers GET /metrics, and nothing else, for as long as the block lasts.

    Args:
        metrics: What to show, in Prometheus' text format.
        host: The interface to listen on.
        port: The port to listen on; 0 picks a free one.

    Yields:
        The address, HOST:PORT.

    Raises:
        StartupError: If the address cannot be bound.
    """
    open_connections: set[asyncio.StreamWriter] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_connections) >= _CONNECTIONS:
            writer.transport.abort()
            return
        open_connections.add(writer)
        try:
            # A client that is slow, gone or talks something else is owed nothing.
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
                async with asyncio.timeout(_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_reply(metrics, head))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            open_connections.discard(writer)

    shown_host = f"[{host}]" if ":" in host else host
    try:
        server = await asyncio.start_server(converse, host, port, limit=_HEAD_BYTES)
    except OSError:
        raise StartupError(
            f"cannot serve metrics on {shown_host}:{port}: the port is in use or the address is not this machine's; "
            "name another with --metrics-port or --host"
        ) from None
    try:
        yield f"{shown_host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_connections:
            writer.transport.abort()


def _reply(metrics: Metrics, head: bytes) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/metrics":
        return _message("404 Not Found", "text/plain", b"only /metrics is here\n")
    if method != b"GET":
        return _message("405 Method Not Allowed", "text/plain", b"only GET is answered\n", "Allow: GET\r\n")
    return _message("200 OK", _TEXT_FORMAT, generate_latest(metrics.registry))


def _message(status: str, content_type: str, body: bytes, headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
