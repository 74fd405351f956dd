"""The `infosink` command as a process: signals, standard streams, and paths of any bytes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

RunProcess = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPTS = Path(sysconfig.get_path("scripts"))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_card_is_laid_out_on_a_terminal(careless: Callable[..., str]) -> None:
    server = careless(card="# Digits\n\n[seven](http://example.org/7) \x1b[5m&#x202e; :cat: [red]\n\n* one\n")
    terminal, output = pty.openpty()
    command = [SCRIPTS / "infosink", "models", "--card", "--server", server]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment) as process:
        os.close(output)
        seen = b""
        try:
            while block := os.read(terminal, 4096):
                seen += block
        except OSError:
            pass  # The terminal's other end is closed.
        assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
    os.close(terminal)
    text = seen.decode()
    assert "# Digits" not in text
    assert "• " in text
    assert "\x1b[5m" not in text
    assert "\u202e" not in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "seven (http://example.org/7)  [5m  :cat: [red]" in plain
    assert plain.splitlines()[0].strip() == "Digits"


# A shell may have told this process, and so its children, to ignore these.
LISTENING = """
import signal, sys
from infosink.clients.command import main
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""


def interrupted(code: str, arguments: list[str], signals: list[signal.Signals], folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output and error of a process that gets signals while it draws."""
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-c", f"{code}\nmain()", *arguments, "--count", "5000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        os.close(stderr)
        seen = b""
        while not re.search(rb"[1-9]\d*/5000000", seen):
            seen += os.read(terminal, 4096)
        assert files(folder) != []
        for number in signals:
            process.send_signal(number)
        try:
            while block := os.read(terminal, 4096):
                seen += block
        except OSError:
            pass  # The terminal's other end is closed.
        stdout, _ = process.communicate(timeout=60)
    os.close(terminal)
    return process.returncode, stdout, seen.decode()


# Every pair of command, output and signals.
@pytest.mark.parametrize(
    ("command", "output", "signals", "exit_code"),
    [
        ("sample", "digits.npz", [signal.SIGINT], 130),
        ("batch", "digits/", [signal.SIGINT], 130),
        ("sample", "digits/", [signal.SIGINT, signal.SIGINT], 130),
        ("batch", "digits.npz", [signal.SIGINT, signal.SIGINT], 130),
        ("sample", "digits.npz", [signal.SIGTERM], 143),
        ("batch", "digits/", [signal.SIGTERM], 143),
        ("sample", "digits/", [signal.SIGHUP], 129),
        ("batch", "digits.npz", [signal.SIGHUP], 129),
    ],
)
def test_nothing_is_left_where_it_is_interrupted(
    folder: Path, command: str, output: str, signals: list[signal.Signals], exit_code: int
) -> None:
    returned, stdout, seen = interrupted(LISTENING, [command, "-o", output], signals, folder)
    assert returned == exit_code
    assert "Error: interrupted; nothing was written" in seen
    assert "Traceback" not in seen
    assert stdout == ""
    assert files(folder) == []


def test_a_second_hangup_does_not_keep_the_first_from_tidying_up(folder: Path) -> None:
    # A shell sends one and the terminal that closes another.
    code = f"""{LISTENING}
import os

def strike(frame, event, argument):
    if frame.f_code.co_name == "rmtree":
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGHUP)

sys.settrace(strike)
"""
    returned, _, seen = interrupted(code, ["batch", "-o", "digits/"], [signal.SIGHUP], folder)
    assert returned == 129
    assert "Error: interrupted; nothing was written" in seen
    assert files(folder) == []


def test_an_ignored_hangup_stays_ignored(folder: Path) -> None:
    code = f"{LISTENING}\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"
    returned, *_ = interrupted(code, ["batch", "-o", "x.npz"], [signal.SIGHUP, signal.SIGTERM], folder)
    assert returned == 143


@pytest.mark.parametrize(("function", "event"), [("print_json", "call"), ("replace", "return")])
def test_an_interrupt_after_the_output_is_in_place_denies_nothing(folder: Path, function: str, event: str) -> None:
    code = f"""{LISTENING}
def strike(frame, event, argument):
    if (frame.f_code.co_name, event) == ({function!r}, {event!r}) and "dataclasses" not in frame.f_code.co_filename:
        sys.settrace(None)
        raise KeyboardInterrupt
    return strike

sys.settrace(strike)
main()
"""
    command = [sys.executable, "-c", code, "sample", "-o", "x.png", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 130
    assert json.loads(result.stderr) == {"error": "interrupted", "message": "interrupted"}
    assert files(folder) == ["x.png"]


# Standard streams


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["sample", "-o", "x.png"], ["--help"]])
def test_a_full_standard_output_is_an_error(process: RunProcess, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = process(*arguments, stdout=full)
    assert result.returncode == 1
    words = "cannot print to standard output: No space left on device"
    assert (json.loads(result.stderr)["message"] if "--json" in arguments else result.stderr) in (
        words,
        f"Error: {words}\n",
    )


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_closed_stream_swallows_what_is_said(folder: Path, stream: str) -> None:
    for arguments in ("models", "models images", "sample -o x.png", "models mnist"):
        command = ["sh", "-c", f'exec "$0" {arguments} {stream}>&-', SCRIPTS / "infosink"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == (4 if "mnist" in arguments else 0)
        assert "Traceback" not in result.stderr


def test_paths_that_are_not_utf_8(process: RunProcess, folder: Path) -> None:
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    result = process("sample", "--count", "1", "--seed", "5", "-o", b"\xff.png", env=strict)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\udcff.png (--seed 5)" in result.stdout
    assert [os.fsencode(name) for name in files(folder)] == [b"\xff.png"]
    for arguments in ([], ["--json"]):
        result = process("infer", b"\xff.png", "--resize", *arguments, env=strict)
        assert result.returncode == 0
        assert "\\udcff.png" in result.stdout
    result = process("infer", b"\xfe.png", env=strict)
    assert (result.returncode, result.stderr) == (1, "Error: \\udcfe.png is not a file; give an image file\n")
