"""HTTP servers on the loopback interface that stand where the MNIST mirrors do."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Serve = Callable[..., AbstractContextManager["Mirror"]]


class Mirror:
    """A running server: its base URL and the paths that were asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[str] = []


@pytest.fixture(scope="session")
def packed_mnist(mnist_directory: Path) -> dict[str, bytes]:
    """The files as mirrors have them, by name."""
    return {f"{path.name}.gz": gzip.compress(path.read_bytes(), 1) for path in mnist_directory.glob("*-ubyte")}


@pytest.fixture
def serve() -> Serve:
    """Serves files by name; `cut` names one whose connection ends after half of its bytes."""

    @contextmanager
    def serving(files: dict[str, bytes], cut: str = "") -> Iterator[Mirror]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/")
                mirror.requests.append(name)
                if name not in files:
                    self.send_error(404)
                    return
                body = files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if name == cut else body)

            def log_message(self, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            mirror = Mirror(f"http://127.0.0.1:{server.server_port}/")
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield mirror
            finally:
                server.shutdown()
                thread.join()

    return serving


@pytest.fixture
def dead_mirror() -> Iterator[str]:
    """The URL of a port that refuses connections: it is bound for as long as the test runs, and never listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}/"


@pytest.fixture
def no_npm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A PATH without npm on it."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
