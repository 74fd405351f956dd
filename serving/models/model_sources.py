"""Where the models are: the files that `--model` names, alone or by their folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StartupError, quoted

_GENERATOR = "gen"
_ENCODER = "q"

Signature = tuple[int, int, int]
"""A file's inode, size and time of modification (ns): another of any of them means other content."""


@dataclass(frozen=True)
class ModelSource:
    """The files of one model, as they were found.

    Attributes:
        name: What to serve it as; what the generator calls itself where None.
        generator: The generator's file.
        encoder: The encoder's file; None where there is none.
        from_folder: Whether a folder was named, so that the model goes when its file does.
        signatures: Of the generator and the encoder; None where there is no such file.
    """

    name: str | None
    generator: Path
    encoder: Path | None
    from_folder: bool
    signatures: tuple[Signature | None, Signature | None]

    @property
    def key(self) -> tuple[str | None, Path]:
        """What stays when the content changes. One file may be served under two names."""
        return self.name, self.generator

    def exists(self) -> bool:
        """Whether the generator's file was there when it was looked for."""
        return self.signatures[0] is not None


def find_models(named: Sequence[tuple[str | None, Path]], encoder: Path | None = None) -> list[ModelSource]:
    """The models that the command line names, in its order; those of a folder by file name.

    In a folder, gen.onnx and every X-gen.onnx is a generator; X is the model's name, which no change of content alters.

    Args:
        named: Files and folders, each file with the name to serve it by, or None.
        encoder: The encoder of the only file; found beside each generator where None.

    Raises:
        StartupError: If a folder cannot be read, holds no generator, or is given a name or an encoder.
    """
    found: list[ModelSource] = []
    for name, path in named:
        if _is_folder(path):
            if name is not None or encoder is not None:
                option = "--encoder" if name is None else f"the name {quoted(name)}"
                raise StartupError(f"{path} is a folder, and {option} goes with one file: name the file")
            found += [_source(*generator, None, from_folder=True) for generator in _generators(path)]
        else:
            found.append(_source(name, path, encoder, from_folder=False))
    return found


def find_encoder(generator: Path) -> Path | None:
    """The encoder beside a generator: q.onnx beside gen.onnx, X-q.onnx beside X-gen.onnx; None where there is none."""
    if not _is_generator(generator):
        return None
    encoder = generator.with_name(generator.stem.removesuffix(_GENERATOR) + _ENCODER + generator.suffix)
    try:
        return encoder if encoder.exists() else None
    except OSError:
        # To read it will say why it cannot be read.
        return encoder


def _generators(folder: Path) -> list[tuple[str | None, Path]]:
    """The generators in a folder, each with the name before "-gen"; None where there is nothing before."""
    try:
        # A hidden file is one that is being written, to be renamed when it is whole.
        files = [path for path in folder.iterdir() if path.suffix == ".onnx" and not path.name.startswith(".")]
    except OSError as error:
        raise StartupError(f"{folder} cannot be read: {error.strerror}") from None
    generators = sorted(path for path in files if _is_generator(path))
    if not generators:
        raise StartupError(f"{folder} holds no model: put gen.onnx or NAME-gen.onnx in it, as infosink-export names it")
    return [(path.stem.removesuffix(_GENERATOR).removesuffix("-") or None, path) for path in generators]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # To read it will say why it cannot be read.
        return False


def _is_generator(path: Path) -> bool:
    return path.stem == _GENERATOR or path.stem.endswith("-" + _GENERATOR)


def _source(name: str | None, generator: Path, encoder: Path | None, *, from_folder: bool) -> ModelSource:
    encoder = encoder or find_encoder(generator)
    return ModelSource(name, generator, encoder, from_folder, (_signature(generator), _signature(encoder)))


def _signature(path: Path | None) -> Signature | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status else None
