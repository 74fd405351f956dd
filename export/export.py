"""The export of a trained model: gen.onnx and q.onnx, made, checked and put in place together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infosink.training.trained_model import TrainedModel
from onnx import ModelProto, helper

from .contents import check_contents
from .errors import ExportError
from .graphs import encoder_graph, generator_graph
from .metadata import Role, check_labels, check_licence, check_name, metadata
from .parity import Parity, measure_parity

GENERATOR_FILE = "gen.onnx"
ENCODER_FILE = "q.onnx"
DEFAULT_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class ExportedModel:
    """The files of an export.

    Attributes:
        generator_path: gen.onnx.
        encoder_path: q.onnx.
        parity: how far both are from PyTorch.
    """

    generator_path: Path
    encoder_path: Path
    parity: Parity


def check_request(directory: Path, *, name: str, licence: str) -> None:
    """Refuses what export_model would refuse before it starts; a missing directory is made.

    Raises:
        ExportError: a name or licence cannot be used, or the directory cannot be written to.
    """
    check_name(name)
    check_licence(licence)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _unwritable(directory, error) from error
    for file in (GENERATOR_FILE, ENCODER_FILE):
        if (directory / file).is_dir():
            raise ExportError(f"{directory / file} is a folder: move it away, or name another folder with --output")


def export_model(
    model: TrainedModel,
    directory: Path,
    *,
    name: str | None = None,
    licence: str = DEFAULT_LICENCE,
    report: Callable[[str], None] = lambda _: None,
) -> ExportedModel:
    """Writes gen.onnx and q.onnx, after a comparison with PyTorch that both must pass.

    Files of an earlier export in that directory are replaced at the very end, or not at all.

    Args:
        model: see load_trained_model.
        directory: where to write; made if missing.
        name: what a server calls the model by default; the data set's name unless given.
        licence: of the weights, as an SPDX identifier.
        report: told of each stage as it begins.

    Raises:
        ExportError: a name, licence or label cannot be used, a file cannot be written, or the graphs do not pass.
    """
    name = model.dataset.name if name is None else name
    check_request(directory, name=name, licence=licence)
    check_labels(model.categories)
    latent_space, sample_shape = model.configuration.latent_space, model.dataset.sample_shape
    report("tracing the networks")
    generator = generator_graph(model.networks, latent_space, sample_shape)
    encoder = encoder_graph(model.networks, latent_space, sample_shape)
    report("comparing with PyTorch")
    parity = measure_parity(model, generator, encoder)
    graphs: dict[Role, ModelProto] = {"generator": generator, "encoder": encoder}
    for role, graph in graphs.items():
        properties = metadata(model, role, name=name, licence=licence, parity_json=parity.to_json())
        helper.set_model_props(graph, properties)
        check_contents(graph, directory)
    report(f"writing {ENCODER_FILE} and {GENERATOR_FILE}")
    paths = {directory / ENCODER_FILE: encoder, directory / GENERATOR_FILE: generator}
    _replace_together({path: graph.SerializeToString(deterministic=True) for path, graph in paths.items()})
    return ExportedModel(directory / GENERATOR_FILE, directory / ENCODER_FILE, parity)


def _replace_together(contents: dict[Path, bytes]) -> None:
    """Writes every file under a temporary name beside its own, then renames them all, in order."""
    temporaries = {path: path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}") for path in contents}
    try:
        for path, temporary in temporaries.items():
            with temporary.open("wb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except OSError as error:
        raise _unwritable(next(iter(contents)).parent, error) from error
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def _unwritable(directory: Path, error: OSError) -> ExportError:
    return ExportError(f"cannot write to {directory}: {error.strerror}; name another folder with --output")
