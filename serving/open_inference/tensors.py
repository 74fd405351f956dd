"""Tensors of the Open Inference Protocol to arrays and back."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from infosink.oip.open_inference_service_pb2 import ModelInferRequest, ModelInferResponse

from ..errors import InvalidRequestError, quoted
from ..runtime.session import Array
from .models import Datatype, TensorSpec

# Little-endian on the wire, whatever this machine is.
_ELEMENT_TYPES: Mapping[Datatype, str] = {"INT64": "<i8", "FP32": "<f4", "UINT8": "|u1"}
_CONTENTS: Mapping[Datatype, str] = {"INT64": "int64_contents", "FP32": "fp32_contents", "UINT8": "uint_contents"}
_SHOWN_DIMENSIONS = 8


def read_inputs(request: ModelInferRequest, specs: Mapping[str, TensorSpec], limit: int) -> dict[str, Array]:
    """The request's inputs by name, all of one number of rows.

    Args:
        request: The message.
        specs: The inputs that the model has.
        limit: The rows allowed.

    Raises:
        InvalidRequestError: If an input is unknown, comes twice, is of another type or shape, has no or too many rows,
            or its contents do not fit its shape.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"raw_input_contents holds {len(raw)} tensors, but the request has {len(request.inputs)} inputs: "
            "give one for each, in order, or none and contents instead",
            reason="LENGTH_MISMATCH",
            field="raw_input_contents",
        )
    _check_names(request.inputs, specs, "inputs")
    arrays: dict[str, Array] = {}
    for position, tensor in enumerate(request.inputs):
        spec, field = specs[tensor.name], f"inputs[{position}]"
        if tensor.datatype != spec.datatype:
            raise InvalidRequestError(
                f"{spec.name} must be {spec.datatype}, but its datatype is {quoted(tensor.datatype)}",
                reason="DATA_TYPE_MISMATCH",
                field=f"{field}.datatype",
                metadata={"value": quoted(tensor.datatype), "limit": spec.datatype},
            )
        shape = _shape(tensor.shape, spec, limit, f"{field}.shape")
        if raw:
            arrays[spec.name] = _raw(tensor, raw[position], spec, shape, position)
        else:
            arrays[spec.name] = _typed(tensor, spec, shape, f"{field}.contents")
    _check_row_counts(arrays)
    return arrays


def read_outputs(request: ModelInferRequest, specs: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    """The outputs asked for, in order; all where none is named.

    Raises:
        InvalidRequestError: If one is unknown, or named twice.
    """
    _check_names(request.outputs, specs, "outputs")
    return [specs[output.name] for output in request.outputs] or list(specs.values())


def add_output(response: ModelInferResponse, spec: TensorSpec, array: Array) -> None:
    """Adds an output, its elements in the order of its spec, to a response."""
    response.outputs.add(name=spec.name, datatype=spec.datatype, shape=[len(array), *spec.row])
    response.raw_output_contents.append(array.astype(_ELEMENT_TYPES[spec.datatype], copy=False).tobytes())


def _check_names(
    tensors: Sequence[ModelInferRequest.InferInputTensor | ModelInferRequest.InferRequestedOutputTensor],
    specs: Mapping[str, TensorSpec],
    field: str,
) -> None:
    """Checks that each tensor is one of the model's, comes once, and has no parameters."""
    seen: set[str] = set()
    for position, tensor in enumerate(tensors):
        if tensor.name not in specs:
            raise InvalidRequestError(
                f"{field}[{position}].name is {quoted(tensor.name)}, but the model's {field} are {', '.join(specs)}",
                reason="VALUE_UNKNOWN",
                field=f"{field}[{position}].name",
                metadata={"value": quoted(tensor.name)},
            )
        if tensor.name in seen:
            raise InvalidRequestError(
                f"{field}[{position}] is {tensor.name} once more: name each of the {field} once",
                reason="VALUE_REPEATED",
                field=f"{field}[{position}].name",
                metadata={"value": tensor.name},
            )
        seen.add(tensor.name)
        for name in tensor.parameters:
            raise InvalidRequestError(
                f"{field}[{position}].parameters holds {quoted(name)}, but tensors have no parameters here, shared "
                "memory and classification included: leave it out",
                reason="VALUE_UNKNOWN",
                field=f"{field}[{position}].parameters",
                metadata={"value": quoted(name)},
            )


def _shape(stated: Sequence[int], spec: TensorSpec, limit: int, field: str) -> tuple[int, ...]:
    shape, rows = tuple(stated), list(dict.fromkeys([spec.row, *spec.also]))
    if not shape or shape[0] < 0 or shape[1:] not in rows:
        shown = str(list(shape)) if len(shape) <= _SHOWN_DIMENSIONS else f"{len(shape)} dimensions"
        accepted = " or ".join(f"[{', '.join(['batch', *map(str, row)])}]" for row in rows)
        raise InvalidRequestError(
            f"{spec.name} must have shape {accepted}, but has {shown}",
            reason="SHAPE_MISMATCH",
            field=field,
            metadata={"value": shown, "limit": accepted},
        )
    if shape[0] == 0:
        raise InvalidRequestError(
            f"{spec.name} has 0 rows, but must have at least 1", reason="VALUE_MISSING", field=field
        )
    if shape[0] > limit:
        raise InvalidRequestError(
            f"{spec.name} has {shape[0]} rows, over the limit of {limit} in this call: split the request, or ask for "
            "fewer outputs",
            reason="LIMIT_EXCEEDED",
            field=field,
            metadata={"value": shape[0], "limit": limit},
        )
    return shape


def _raw(
    tensor: ModelInferRequest.InferInputTensor, data: bytes, spec: TensorSpec, shape: tuple[int, ...], position: int
) -> Array:
    if tensor.contents.ByteSize():
        raise InvalidRequestError(
            f"{spec.name} has both contents and raw_input_contents: give one of them",
            reason="VALUE_REPEATED",
            field=f"inputs[{position}].contents",
        )
    element_type = np.dtype(_ELEMENT_TYPES[spec.datatype])
    expected = math.prod(shape) * element_type.itemsize
    if len(data) != expected:
        raise InvalidRequestError(
            f"{spec.name} of shape {list(shape)} needs {expected} bytes of {spec.datatype}, but has {len(data)}",
            reason="LENGTH_MISMATCH",
            field=f"raw_input_contents[{position}]",
            metadata={"value": len(data), "limit": expected},
        )
    return np.frombuffer(data, element_type).reshape(shape).astype(element_type.newbyteorder("="), copy=False)


def _typed(tensor: ModelInferRequest.InferInputTensor, spec: TensorSpec, shape: tuple[int, ...], field: str) -> Array:
    name = _CONTENTS[spec.datatype]
    values = getattr(tensor.contents, name)
    expected = math.prod(shape)
    filled = sum(len(other) for _, other in tensor.contents.ListFields())
    if len(values) != expected or filled != expected:
        raise InvalidRequestError(
            f"{spec.name} of shape {list(shape)} needs {expected} elements in contents.{name}, but has {len(values)} "
            f"there and {filled - len(values)} elsewhere",
            reason="LENGTH_MISMATCH",
            field=field,
            metadata={"value": len(values), "limit": expected},
        )
    return np.fromiter(values, np.dtype(_ELEMENT_TYPES[spec.datatype]).newbyteorder("="), expected).reshape(shape)


def _check_row_counts(arrays: Mapping[str, Array]) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        counts = ", ".join(f"{len(array)} of {name}" for name, array in arrays.items())
        raise InvalidRequestError(
            f"the inputs have {counts}: give as many rows of each", reason="SHAPE_MISMATCH", field="inputs"
        )
