"""Tensor messages to arrays and back."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, DATA_TYPE_UNSPECIFIED, DataType, Tensor

from ..errors import InvalidRequestError

# Little-endian on the wire, whatever this machine is.
_ELEMENT_TYPES: dict[DataType, np.dtype[np.uint8] | np.dtype[np.float32]] = {
    DATA_TYPE_UINT8: np.dtype("u1"),
    DATA_TYPE_FLOAT32: np.dtype("<f4"),
}


def to_message(array: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Tensor:
    """The array as a message."""
    data_type = DATA_TYPE_UINT8 if array.dtype == np.uint8 else DATA_TYPE_FLOAT32
    return Tensor(data_type=data_type, shape=array.shape, data=array.astype(_ELEMENT_TYPES[data_type]).tobytes())


def to_array(tensor: Tensor, what: str, shapes: dict[DataType, Sequence[tuple[int, ...]]]) -> npt.NDArray[np.generic]:
    """The message as an array.

    Args:
        tensor: The message.
        what: The path of the field that holds it, for messages.
        shapes: The element types accepted, each with the shapes accepted.

    Raises:
        InvalidRequestError: If element type, shape or length is wrong, or a float32 element is not finite.
    """
    if tensor.data_type not in shapes:
        accepted = " or ".join(_type_name(data_type) for data_type in shapes)
        raise InvalidRequestError(
            f"{what} must be {accepted}, but its data_type is {_type_name(tensor.data_type)}",
            reason="DATA_TYPE_MISMATCH",
            field=f"{what}.data_type",
            metadata={"value": int(tensor.data_type), "limit": accepted},
        )
    shape = tuple(tensor.shape)
    if shape not in shapes[tensor.data_type]:
        accepted = " or ".join(str(list(shape)) for shape in shapes[tensor.data_type])
        raise InvalidRequestError(
            f"{what} as {_type_name(tensor.data_type)} must have shape {accepted}, but has {_shape_text(shape)}",
            reason="SHAPE_MISMATCH",
            field=f"{what}.shape",
            metadata={"value": _shape_text(shape), "limit": accepted},
        )
    element_type = _ELEMENT_TYPES[tensor.data_type]
    expected = math.prod(shape) * element_type.itemsize
    if len(tensor.data) != expected:
        raise InvalidRequestError(
            f"{what} of shape {list(shape)} needs {expected} bytes of {_type_name(tensor.data_type)}, "
            f"but has {len(tensor.data)}",
            reason="LENGTH_MISMATCH",
            field=f"{what}.data",
            metadata={"value": len(tensor.data), "limit": expected},
        )
    array = np.frombuffer(tensor.data, element_type).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequestError(
            f"{what} holds values that are not finite (NaN or infinity): replace them",
            reason="VALUE_NOT_FINITE",
            field=f"{what}.data",
        )
    return array.astype(element_type.newbyteorder("="), copy=False)


def _type_name(data_type: DataType) -> str:
    names = {DATA_TYPE_UNSPECIFIED: "UNSPECIFIED", DATA_TYPE_UINT8: "UINT8", DATA_TYPE_FLOAT32: "FLOAT32"}
    return names.get(data_type, f"{int(data_type)}, which is unknown")


def _shape_text(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"{len(shape)} dimensions"
