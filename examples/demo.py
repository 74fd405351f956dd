"""The model that ships: serve it, sample digits over gRPC, and read codes back, in seconds.

usage: python examples/demo.py [DIRECTORY]

The pictures go into DIRECTORY, demo unless given. Every step is a command that is printed before it runs; no data is
fetched and nothing is trained.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infosink.clients import Client
from PIL import Image

BIN = Path(sys.executable).parent
STYLE = (0.5, -0.3)


def command(*words: str | Path) -> list[str]:
    """The words of a command of this environment, printed as a user would type them."""
    name, *arguments = map(str, words)
    print(f"\n$ {shlex.join([name, *arguments])}", flush=True)
    return [str(BIN / name), *arguments]


@contextmanager
def started(*words: str | Path, **streams: int) -> Iterator[subprocess.Popen[str]]:
    """A command of this environment, which is told to end at the context's end, and may take its time."""
    # In a session of its own, so that a terminal's Ctrl-C comes here alone, and no command is struck as it starts.
    process = subprocess.Popen(command(*words), text=True, start_new_session=True, **streams)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def run(*words: str | Path) -> None:
    """Runs a command; its failure ends the demo."""
    with started(*words) as process:
        if code := process.wait():
            raise SystemExit(code)


@contextmanager
def served(*options: str | Path) -> Iterator[None]:
    """Serves the model that ships, or what the options name, to all commands within the context."""
    with started("infosink-serve", *options, "--port", "0", stdout=subprocess.PIPE) as server:
        ready = server.stdout.readline() if server.stdout else ""
        if "SERVING" not in ready:
            raise SystemExit(server.wait() or 1)
        print(ready, end="", flush=True)
        os.environ["INFOSINK_SERVER"] = ready.split(" on ", 1)[1].split(",", 1)[0]
        yield


def draw(directory: Path) -> dict[Path, str]:
    """Draws pictures, and reads a code back; returns what each picture shows."""
    run("infosink", "models", "mnist")
    style = [word for value in STYLE for word in ("--style", str(value))]
    at = f"style {' '.join(f'{value:+}' for value in STYLE)}"
    pictures = {directory / "samples.png": "100 digits, class and style drawn at random"}
    run("infosink", "sample", "--count", "100", "--seed", "1", "-o", directory / "samples.png")
    pictures[directory / "sevens.png"] = f"sevens of {at}"
    run("infosink", "sample", "--label", "7", *style, "--count", "16", "--seed", "1", "-o", directory / "sevens.png")
    with Client() as client:
        styles = client.model().model.latent_space.styles
        seven = client.sample(1, label="7", style=STYLE, seed=1).samples[0, ..., 0]
    for index, described in enumerate(styles, start=1):
        picture = directory / f"style-{index}.png"
        pictures[picture] = f"what style {index} changes, digit by digit: {described.meaning or 'see for yourself'}"
        run("infosink", "traverse", "--style-index", str(index), "--seed", "1", "-o", picture)
    Image.fromarray(seven).save(directory / "seven.png")
    print(f"\n{directory / 'seven.png'} is the first of the sevens, made with {at}: what does Q make of it?")
    run("infosink", "infer", directory / "seven.png")
    return pictures


def output_directory() -> Path:
    """The folder that the command line names, demo unless it does."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"cannot make the folder {directory}: {error.strerror}; name another")
    return directory


def look_at(pictures: dict[Path, str]) -> None:
    """Says what there is to see."""
    print("\nLook at")
    width = max(len(str(picture)) for picture in pictures)
    for picture, content in pictures.items():
        print(f"  {picture!s:{width}}  {content}")


def main() -> None:
    """Serves the model that ships, draws, and says what to try next."""
    directory = output_directory()
    with served():
        pictures = draw(directory)
    look_at(pictures)
    print(
        f"\nTry next, with {os.path.relpath(BIN)} in the PATH\n"
        "  infosink-serve                                      and, in another terminal:\n"
        "  infosink models --card                              what the model is, and is not for\n"
        "  infosink sample --label 3 --style 1 --style 0 -o threes.png\n"
        "  infosink infer --resize --invert PHOTO              your own digit, dark on light\n"
        "  make demo-train                                     train one yourself, in minutes"
    )


def conclude(main: Callable[[], None], advice: str) -> None:
    """Runs a demo; what ends it from outside ends its commands too, and Ctrl-C with a word of advice."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        main()
    except KeyboardInterrupt:
        print(f"\ninterrupted; {advice}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    conclude(main, "make demo starts again")
