"""The whole chain on MNIST: train for some minutes, export, and go on as demo.py does, with the model that was made.

usage: python examples/demo_train.py [DIRECTORY]

A training run that was stopped is continued, and a finished one is used again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from demo import conclude, draw, look_at, output_directory, run, served
from PIL import Image


def train(run_directory: Path) -> None:
    """Trains, or continues, or finds that there is nothing left to do."""
    if (run_directory / "gen.onnx").exists():
        print(f"{run_directory / 'gen.onnx'} is there already: not training again")
        return
    options = ["--resume"] if (run_directory / "config.json").exists() else ["--preset", "quick"]
    if options == ["--resume"] and is_complete(run_directory):
        print("the run is complete: not training again")
    else:
        run("infosink-train", "mnist", *options, "--output", run_directory, "--checkpoint-every", "100")
    run("infosink-export", run_directory)


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


def main() -> None:
    """Trains, exports, serves, draws."""
    directory = output_directory()
    train(directory / "run")
    with served("--model", directory / "run" / "gen.onnx"):
        pictures = draw(directory)
        run("infosink", "batch", "--count", "10000", "--seed", "1", "-o", directory / "digits.npz")
        write_test_digit(directory / "test-digit.png")
        run("infosink", "infer", directory / "test-digit.png")
    look_at(pictures)


if __name__ == "__main__":
    conclude(main, "make demo-train goes on where it stopped")
