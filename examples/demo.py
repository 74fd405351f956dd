"""The whole chain on MNIST: train for some minutes, export, serve, and sample digits over gRPC.

usage: python examples/demo.py DIRECTORY

Every step is a command that is printed before it runs. A training run that was stopped is
continued, and a finished one is used again.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

BIN = Path(sys.executable).parent


def command(*words: str | Path) -> list[str]:
    """The words of a command of this environment, printed as a user would type them."""
    name, *arguments = map(str, words)
    print(f"\n$ {shlex.join([name, *arguments])}", flush=True)
    return [str(BIN / name), *arguments]


def run(*words: str | Path) -> None:
    """Runs a command; its failure ends the demo."""
    done = subprocess.run(command(*words), check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def train(directory: Path) -> None:
    """Trains, or continues, or finds that there is nothing left to do."""
    finished = directory / "run" / "gen.onnx"
    if finished.exists():
        print(f"{finished} is there already: not training again")
        return
    options = ["--resume"] if (directory / "run" / "config.json").exists() else ["--preset", "quick"]
    if options == ["--resume"] and is_complete(directory / "run"):
        print("the run is complete: not training again")
    else:
        run("infosink-train", "mnist", *options, "--output", directory / "run", "--checkpoint-every", "100")
    run("infosink-export", directory / "run")


def is_complete(run_directory: Path) -> bool:
    """Whether a run has reached its last iteration."""
    from infosink.training.run_directory import RunDirectory, RunDirectoryError

    try:
        directory = RunDirectory.open(run_directory)
        reached = directory.read_checkpoint().header["iteration"]
        return bool(reached >= directory.read_configuration()[0].iterations)
    except RunDirectoryError:
        return False


def write_test_digit(path: Path) -> None:
    """Writes the first image of MNIST's test set as a PNG."""
    from infosink.training.datasets import open_dataset

    samples, labels = next(iter(open_dataset("mnist").batches("test", 1)))
    levels = np.rint((samples[0, 0, 2:-2, 2:-2].numpy() + 1) * 127.5).astype(np.uint8)
    Image.fromarray(levels).save(path)
    print(f"\n{path} is the first image of the test set, a {int(labels[0]) if labels is not None else '?'}")


def sample(directory: Path, server: str) -> None:
    """Draws the pictures through the server."""
    at = ["--server", server]
    run("infosink", "models", "mnist", *at)
    run("infosink", "sample", "--count", "100", "--seed", "1", "-o", directory / "samples.png", *at)
    run("infosink", "sample", "--label", "7", "--style", "0.5", "--style", "-0.3", "--count", "16", "--seed", "1",
        "-o", directory / "sevens.png", *at)  # fmt: skip
    for style in ("1", "2"):
        picture = directory / f"style-{style}.png"
        run("infosink", "traverse", "--style-index", style, "--seed", "1", "-o", picture, *at)
    run("infosink", "batch", "--count", "10000", "--seed", "1", "-o", directory / "digits.npz", *at)
    write_test_digit(directory / "test-digit.png")
    run("infosink", "infer", directory / "test-digit.png", *at)


def main() -> None:
    """Trains, exports, serves, samples."""
    directory = Path(sys.argv[1])
    train(directory)
    serve = command("infosink-serve", "--model", directory / "run" / "gen.onnx", "--port", "0")
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = server.stdout.readline() if server.stdout else ""
            if "SERVING" not in ready:
                raise SystemExit(server.wait() or 1)
            print(ready, end="", flush=True)
            sample(directory, ready.split(" on ", 1)[1].split(",", 1)[0])
        finally:
            server.send_signal(signal.SIGTERM)
    pictures = [directory / f"{name}.png" for name in ("samples", "sevens", "style-1", "style-2")]
    print(f"\nLook at {', '.join(map(str, pictures))}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; make demo goes on where it stopped")
