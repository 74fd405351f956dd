"""Servers in processes of their own: started, waited for, watched and ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from .load import REPOSITORY

START_SECONDS = 90
END_SECONDS = 15
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A server's processes: the first one and all that descend from it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def resident_bytes(self) -> int:
        """The memory that its processes hold, shared pages counted for each."""
        return sum(int(fields[21]) * _PAGE for fields in self._statistics())

    def processor_seconds(self) -> float:
        """What its living processes have used of the processors."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._statistics()) / _TICKS

    def _statistics(self) -> Iterator[list[str]]:
        """What the system says of each process, from its state on (proc(5), stat)."""
        found = _statistics()
        return (found[identity] for identity in _descendants(found, self.process.pid))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops its processes for as long as the context lasts, so that they take nothing from whoever is measured."""
        family = _descendants(_statistics(), self.process.pid)
        _signal(family, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(family, signal.SIGCONT)

    @contextlib.contextmanager
    def watched(self, every: float = 0.25) -> Iterator[list[tuple[float, int]]]:
        """Seconds since the start and resident bytes, gathered as long as the context lasts."""
        seen: list[tuple[float, int]] = []
        over, started = threading.Event(), time.perf_counter()

        def watch() -> None:
            while not over.wait(every):
                seen.append((time.perf_counter() - started, self.resident_bytes()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    address: str | None = None,
    log: Path | None = None,
    directory: Path = REPOSITORY,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Runs a server until the context ends.

    Args:
        command: What to run.
        address: Where it will listen; where None, it states it in the first line of its stdout, after " on ".
        log: Where its output goes; shown where None, if it does not start.
        directory: Where to run it.
        environment: Variables besides this process's own.

    Raises:
        RuntimeError: If it ends, or says nothing in time, instead of serving.
    """
    with contextlib.ExitStack() as stack:
        output = log.open("w+") if log else tempfile.TemporaryFile("w+")  # noqa: SIM115  (the next line closes it)
        stack.enter_context(output)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE if address is None else output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=directory,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        stack.callback(_end, process)
        yield Server(process, address or _stated_address(process, output))


def _stated_address(process: subprocess.Popen[str], output: IO[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(START_SECONDS) else ""
    if " on " not in line:
        process.kill()
        process.wait()
        output.seek(0)
        raise RuntimeError(f"{process.args} did not say where it serves, but {line!r}, and {output.read()[-2000:]!r}")
    return line.split(" on ")[1].split(",")[0].strip()


def _statistics() -> dict[int, list[str]]:
    """Of every process, by its number, what the system says of it, from its state on (proc(5), stat)."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(directory.name)] = (directory / "stat").read_text().rsplit(") ", 1)[1].split()
    return found


def _descendants(found: Mapping[int, list[str]], first: int) -> list[int]:
    """A process, its children, theirs and so on."""
    family = [first] if first in found else []
    for member in family:
        family += [identity for identity, fields in found.items() if int(fields[1]) == member]
    return family


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for identity in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity, number)


def _end(process: subprocess.Popen[str]) -> None:
    # Taken before the end, which makes orphans of those that outlive it.
    found = _statistics()
    family = {identity: found[identity][19] for identity in _descendants(found, process.pid)}
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    left = _statistics()
    alive = [identity for identity, birth in family.items() if identity in left and left[identity][19] == birth]
    _signal(alive, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_address() -> str:
    """An address of this machine's own, with a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of these modules as a program."""
    return [sys.executable, "-m", f"benchmarks.serving.{name}", *arguments]


def infosink_serve(model: Path, threads: int, *options: str) -> list[str]:
    """The command that serves a generator on a free port."""
    executable = str(Path(sys.executable).with_name("infosink-serve"))
    return [executable, "--model", str(model), "--port", "0", "--device", "cpu", "--threads", str(threads), *options]
