"""The run directory: what a run leaves behind, and what it resumes from.

    config.json               the resolved configuration and the facts of the data
    metrics.jsonl             one JSON object a line, each with its iteration; appended to
    checkpoint.safetensors    weights, optimiser and random state; scalars in the header
    samples/000500.png        pictures of samples at an iteration

All but the log are written under a temporary name and then renamed, so that a crash, a signal
or a full disk leaves the previous version whole. Nothing is pickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    def require_free(cls, path: Path) -> None:
        """Checks that a new run directory can be made at a path, and makes nothing.

        Raises:
            RunDirectoryError: it exists and is not empty, or cannot be written to.
        """
        with _clearly(f"cannot write to {path}", remedy="name another with --output"):
            if path.is_dir() and any(path.iterdir()):
                raise RunDirectoryError(
                    f"{path} is not empty: continue that run with --resume, or name another with --output"
                )
            ancestor = next(each for each in (path, *path.absolute().parents) if each.exists())
            if not ancestor.is_dir():
                raise RunDirectoryError(f"cannot write to {path}: {ancestor} is a file; name another with --output")
            if not os.access(ancestor, os.W_OK):
                raise RunDirectoryError(f"cannot write to {path}: permission denied; name another with --output")

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Makes a new run directory; an existing empty one will do.

        Raises:
            RunDirectoryError: it exists and is not empty, or cannot be written to.
        """
        cls.require_free(path)
        with _clearly(f"cannot write to {path}", remedy="name another with --output"):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens the directory of an earlier run.

        Raises:
            RunDirectoryError: there is no run at that path.
        """
        with _clearly(f"cannot read {path}"):
            if not (path / "config.json").is_file():
                raise RunDirectoryError(
                    f"{path} holds no run: it has no config.json; name a directory of infosink-train"
                )
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training in this directory.

        Raises:
            RunDirectoryError: one is at it already.
        """
        with _clearly(f"cannot write to {self.path}"), (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunDirectoryError(f"another infosink-train is at work in {self.path}: wait for it") from error
            yield

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is or will be."""
        return self.path / "checkpoint.safetensors"

    def write_configuration(
        self, configuration: Configuration, data: dict[str, Any], environment: dict[str, Any] | None = None
    ) -> None:
        """Writes config.json: the configuration, the facts of the data, and where and with what it runs.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        values = configuration.to_mapping() | {"data": data, "environment": environment or {}}
        path = self.path / "config.json"
        with _clearly(f"cannot write {path}", remedy="free some space"), _replacing(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

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
            values.pop("environment", None)
            return Configuration.from_mapping(values), dict(data)
        except KeyError as error:
            raise RunDirectoryError(f"{path} is damaged: it lacks {error}") from error
        except (TypeError, AttributeError, RecursionError) as error:
            raise RunDirectoryError(f"{path} is damaged: it does not hold the settings of a run") from error
        except (ValueError, ConfigurationError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error}") from error
        except OSError as error:
            raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl; what is infinite or NaN becomes null.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        path = self.path / "metrics.jsonl"
        with _clearly(f"cannot write {path}", remedy="free some space"), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without a last line that a crash cut short.

        Raises:
            RunDirectoryError: it cannot be read, or is damaged.
        """
        path = self.path / "metrics.jsonl"
        with _clearly(f"cannot read {path}"):
            if not path.exists():
                return []
            contents = path.read_bytes()
        try:
            records = [json.loads(line) for line in contents.split(b"\n")[:-1]]
            return [record for record in records if int(record["iteration"]) > 0]
        except (ValueError, KeyError, TypeError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error!r}; delete it and use --resume again") from error

    def forget_metrics_after(self, iteration: int) -> None:
        """Drops the lines past an iteration, which a resumed run will write again.

        Raises:
            RunDirectoryError: the file cannot be read or written, or is damaged.
        """
        kept = [record for record in self.read_metrics() if record["iteration"] <= iteration]
        path = self.path / "metrics.jsonl"
        with _clearly(f"cannot write {path}", remedy="free some space"), _replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def write_checkpoint(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Replaces the checkpoint.

        Raises:
            RunDirectoryError: it cannot be written, for want of space say; the earlier one is whole.
        """
        # One key: safetensors writes several in no fixed order, and equal states should be equal files.
        metadata = {CHECKPOINT_FORMAT: json.dumps(header, sort_keys=True)}
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
        try:
            contents = path.read_bytes()
        except FileNotFoundError as error:
            raise RunDirectoryError(
                f"{path} does not exist: the run has not reached its first checkpoint; "
                "wait for it, or start it again with infosink-train --resume"
            ) from error
        except OSError as error:
            raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
        try:
            tensors = load(contents)
            # The file's own layout: the length of a JSON header, then the header, then the tensors.
            metadata = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")]).get("__metadata__", {})
            if CHECKPOINT_FORMAT not in metadata:
                raise RunDirectoryError(f"{path} is not a checkpoint of infosink-train ({CHECKPOINT_FORMAT})")
            header = dict(json.loads(metadata[CHECKPOINT_FORMAT]))
            return Checkpoint(tensors, header, hashlib.sha256(contents).hexdigest())
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error}; restore it from a copy or train again") from error

    def write_picture(self, iteration: int, save: Callable[[Path], None]) -> Path:
        """Writes samples/ITERATION.png through a function that saves a picture to the path it is given.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        path = self.path / "samples" / f"{iteration:06d}.png"
        with _clearly(f"cannot write {path}", remedy="free some space"):
            path.parent.mkdir(exist_ok=True)
            with _replacing(path) as temporary:
                save(temporary)
        return path


@contextmanager
def _clearly(failure: str, remedy: str = "") -> Iterator[None]:
    """Turns an operating system's refusal into a message for the user."""
    try:
        yield
    except OSError as error:
        ending = f"; {remedy}" if remedy else ""
        raise RunDirectoryError(f"{failure}: {error.strerror or error}{ending}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, synchronised and renamed to it at the end, removed on failure.

    The name is always the same, so that what a killed process leaves is overwritten by the next.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
