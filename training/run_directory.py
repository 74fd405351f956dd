"""The run directory: what a run leaves behind, and what it resumes from.

    config.json               the resolved configuration and the facts of the data
    metrics.jsonl             one JSON object a line, each with its iteration
    checkpoint.safetensors    weights, optimiser and random state; scalars in the header
    samples/000500.png        pictures of samples at an iteration

Files are written under a temporary name and then renamed, so that a crash, a signal or a
full disk leaves the previous version whole. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .configuration import Configuration, ConfigurationError

CHECKPOINT_FORMAT = "infosink-checkpoint-1"


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    tensors: dict[str, Tensor]  # on the CPU
    header: dict[str, Any]
    sha256: str  # of the very bytes that were read, in hexadecimal


class RunDirectoryError(Exception):
    """A run directory that cannot be used; the message says why and what to do."""


class RunDirectory:
    """A run directory that exists.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Makes a new run directory; an existing empty one will do.

        Raises:
            RunDirectoryError: it exists and is not empty, or cannot be written to.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunDirectoryError(
                    f"{path} is not empty: continue that run with --resume, or name another with --output"
                )
            if not os.access(path, os.W_OK):
                raise RunDirectoryError(f"cannot write to {path}: permission denied; name another with --output")
        except OSError as error:
            raise RunDirectoryError(f"cannot write to {path}: {error.strerror}; name another with --output") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens the directory of an earlier run.

        Raises:
            RunDirectoryError: there is no run at that path.
        """
        if not (path / "config.json").is_file():
            raise RunDirectoryError(f"{path} holds no run: it has no config.json; name a directory of infosink-train")
        return cls(path)

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is or will be."""
        return self.path / "checkpoint.safetensors"

    def write_configuration(self, configuration: Configuration, data: dict[str, Any]) -> None:
        """Writes config.json: the configuration, and the facts of the data under "data"."""
        text = json.dumps(asdict(configuration) | {"data": data}, indent=2)
        with _replacing(self.path / "config.json") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def read_configuration(self) -> tuple[Configuration, dict[str, Any]]:
        """Reads config.json.

        Returns:
            The configuration, and the facts of the data.

        Raises:
            RunDirectoryError: the file is damaged.
        """
        path = self.path / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            data = values.pop("data")
            return Configuration.from_mapping(values), dict(data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error}") from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without a last line that a crash cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise RunDirectoryError(f"{path} is damaged: {error}; delete it and use --resume again") from error

    def forget_metrics_after(self, iteration: int) -> None:
        """Drops the lines past an iteration, which a resumed run will write again."""
        kept = [record for record in self.read_metrics() if record["iteration"] <= iteration]
        with _replacing(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def write_checkpoint(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Replaces the checkpoint.

        Raises:
            RunDirectoryError: it cannot be written, for want of space say; the earlier one is whole.
        """
        metadata = {"format": CHECKPOINT_FORMAT, "header": json.dumps(header)}
        try:
            with _replacing(self.checkpoint_path) as temporary:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        except (OSError, SafetensorError) as error:
            kept = "the earlier checkpoint is kept" if self.checkpoint_path.exists() else "there is no earlier one"
            raise RunDirectoryError(f"cannot write {self.checkpoint_path}: {error}; {kept}; free some space") from error

    def read_checkpoint(self) -> Checkpoint:
        """Reads the checkpoint.

        Raises:
            RunDirectoryError: there is none, or it is damaged or foreign.
        """
        path = self.checkpoint_path
        if not path.is_file():
            raise RunDirectoryError(f"{path} does not exist: the run was stopped before its first checkpoint")
        try:
            contents = path.read_bytes()
            tensors = load(contents)
            # The file's own layout: the length of a JSON header, then the header, then the tensors.
            metadata = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")]).get("__metadata__", {})
            if metadata.get("format") != CHECKPOINT_FORMAT:
                raise RunDirectoryError(f"{path} is not a checkpoint of infosink-train ({CHECKPOINT_FORMAT})")
            return Checkpoint(tensors, json.loads(metadata["header"]), hashlib.sha256(contents).hexdigest())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error}; restore it from a copy or train again") from error

    def write_picture(self, iteration: int, save: Callable[[Path], None]) -> Path:
        """Writes samples/ITERATION.png through a function that saves a picture to the path it is given."""
        path = self.path / "samples" / f"{iteration:06d}.png"
        path.parent.mkdir(exist_ok=True)
        with _replacing(path) as temporary:
            save(temporary)
        return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, synchronised and renamed to it at the end, removed on failure."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
