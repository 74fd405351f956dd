"""What a model file may hold: a valid, deterministic graph in one piece, and nothing of the machine it was made on."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import ModelProto

from .errors import ExportError

_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_DEPENDENT = frozenset({"DynamicQuantizeLinear"})
"""What makes a row depend on its company: their scale is that of the whole batch."""


def check_contents(model: ModelProto, directory: Path) -> None:
    """Refuses a model file that must not be given away.

    Args:
        model: with its metadata.
        directory: where it is going to lie.

    Raises:
        ExportError: the file is no valid ONNX, draws random numbers, mixes the rows of a batch, needs other operators
            than ONNX's own or other files, or names a path of this machine.
    """
    name = model.graph.name
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the {name} is not valid ONNX: {error}; nothing was written") from error
    operators = {node.op_type for node in model.graph.node}
    if random := sorted(operators & _RANDOM):
        raise ExportError(f"the {name} draws random numbers ({', '.join(random)}); nothing was written")
    if dependent := sorted(operators & _DEPENDENT):
        raise ExportError(
            f"the {name} gives a sample other bytes in another batch ({', '.join(dependent)}); nothing was written"
        )
    foreign = sorted({node.op_type for node in model.graph.node if node.domain})
    if foreign or model.functions:
        raise ExportError(f"the {name} needs operators beyond ONNX's own ({', '.join(foreign)}); nothing was written")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ExportError(f"the {name} keeps weights in other files; nothing was written")
    if found := _quoted(_texts(model), directory):
        raise ExportError(f"the {name} would give away {found!r}, a path of this machine; nothing was written")


def _texts(model: ModelProto) -> tuple[bytes, bytes]:
    """The graph and the metadata, serialised without weights, whose bytes can spell anything."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:]
    for tensor in model.graph.initializer:
        graph.initializer.add(name=tensor.name, doc_string=tensor.doc_string)
    properties = onnx.ModelProto(metadata_props=model.metadata_props, doc_string=model.doc_string)
    return graph.SerializeToString(), properties.SerializeToString()


def _quoted(texts: tuple[bytes, bytes], directory: Path) -> str | None:
    graph, properties = texts
    if b".py" in graph:
        return ".py"
    paths = (directory.resolve(), Path.home(), Path(sysconfig.get_path("purelib")), Path(__file__).parent)
    return next((str(path) for path in _proper(paths) if str(path).encode() in graph + properties), None)


def _proper(paths: Iterable[Path]) -> Iterable[Path]:
    """The paths that are more than a root, which any slash would spell."""
    return (path for path in paths if path != Path(path.anchor))
