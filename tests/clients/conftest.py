"""A real server of the committed model files, and the command as people run it."""

import re
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from infosink.clients import Client
from infosink.clients.command import main

SCHEMA_1 = Path(__file__).parents[1] / "compatibility" / "schema-1"
SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of two models: "images", which it means by default, and "points"."""
    arguments = ["--model", f"images={SCHEMA_1 / 'gen.onnx'}", "--model", f"points={SCHEMA_1 / 'points-gen.onnx'}"]
    command = [SCRIPTS / "infosink-serve", *arguments, "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            address = re.search(r" on (\S+:\d+)", ready)
            assert address, f"no address in the ready line {ready!r}"
            yield address[1]
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that refuses connections: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Path:
    """An empty folder to work in, with the server in INFOSINK_SERVER."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFOSINK_SERVER", server)
    return tmp_path


@pytest.fixture
def infosink(folder: Path) -> Callable[..., Result]:
    """Runs `infosink` in the folder, within this process."""
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture
def process(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `infosink` in the folder, as a process of its own."""
    return lambda *arguments: subprocess.run(
        [SCRIPTS / "infosink", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
