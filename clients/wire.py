"""The messages of `infosink.v1` as numpy arrays, and back; what the server sends is checked before it is used."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from infosink.v1 import model_pb2, tensor_pb2
from infosink.v1 import sampling_service_pb2 as v1
from numpy.typing import ArrayLike, NDArray

from .errors import MalformedReplyError
from .frames import crop_to_native
from .results import InferredCodes, Samples

# The wire is little-endian whatever the machine is.
_WIRE_TYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
_MOST_DIMENSIONS = 4
# float32 probabilities may leave [0, 1] this far.
_TOLERANCE = 1e-3


def to_tensor(array: NDArray[Any]) -> tensor_pb2.Tensor:
    """A uint8 array as it is, any other as float32.

    Args:
        array: Any shape and byte order.
    """
    data_type = tensor_pb2.DATA_TYPE_UINT8 if array.dtype == np.uint8 else tensor_pb2.DATA_TYPE_FLOAT32
    data = array.astype(_WIRE_TYPES[data_type]).tobytes(order="C")
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=data)


def finite_float32(
    values: ArrayLike, name: str, largest: float = float(np.finfo(np.float32).max)
) -> NDArray[np.float32]:
    """Real numbers as float32.

    Args:
        values: Any shape.
        name: What they are, for messages.
        largest: The largest magnitude.

    Raises:
        TypeError: If they are no real numbers.
        ValueError: If one is not finite, or larger.
    """
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"{name} must be real numbers; these are {array.dtype}")
    if array.dtype.itemsize < np.dtype(np.float32).itemsize:
        array = array.astype(np.float32)
    if not ((-largest <= array) & (array <= largest)).all():
        raise ValueError(f"{name} must be finite, and at most {largest:.7g} in magnitude")
    return array.astype(np.float32)


def from_tensor(tensor: tensor_pb2.Tensor, name: str, data_type: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """A writable array in the machine's byte order.

    Args:
        tensor: The message.
        name: What it holds, for messages.
        data_type: The element type that it must have.
        shape: The shape that it must have.

    Raises:
        MalformedReplyError: If it has another type or shape, or the data's length does not fit them.
    """
    if tensor.data_type != data_type:
        raise MalformedReplyError(
            f"the server's reply holds {name} of element type {tensor.data_type}; its model needs {data_type}"
        )
    # However long, the server's list is not printed.
    received = tuple(tensor.shape[: _MOST_DIMENSIONS + 1])
    if received != shape:
        more = " and more" if len(tensor.shape) > len(received) else ""
        raise MalformedReplyError(
            f"the server's reply holds {name} of shape {list(received)}{more}; its model needs {list(shape)}"
        )
    wire_type = _WIRE_TYPES[data_type]
    expected = math.prod(shape) * wire_type.itemsize
    if len(tensor.data) != expected:
        raise MalformedReplyError(
            f"the server's reply holds {len(tensor.data)} bytes of {name}; its shape {list(shape)} needs {expected}"
        )
    return np.frombuffer(tensor.data, wire_type).reshape(shape).astype(wire_type.newbyteorder("="))


def samples_from_batch(batch: v1.SampleBatch, model: model_pb2.Model) -> Samples:
    """The batch's samples, images cropped to the native frame.

    Raises:
        MalformedReplyError: If the batch does not fit the model's description of itself.
    """
    count = len(batch.categories)
    space = model.sample_space
    samples: NDArray[Any]
    if space.HasField("image"):
        image = space.image
        shape = (count, image.height, image.width, image.channels)
        samples = crop_to_native(from_tensor(batch.tensor, "samples", tensor_pb2.DATA_TYPE_UINT8, shape), image)
    else:
        samples = _floats(batch.tensor, "samples", (count, space.point.dimensions), -math.inf, math.inf)
    _check_codes(batch.categories, batch.labels, model.latent_space)
    noise_source = batch.WhichOneof("noise_source")
    return Samples(
        samples=samples,
        categories=np.array(batch.categories, np.int64),
        labels=np.array(batch.labels, np.str_),
        style=_floats(batch.style, "style values", (count, len(model.latent_space.styles)), -1, 1),
        seed=batch.seed,
        first_index=batch.first_index,
        shared_noise_index=batch.shared_noise_index if noise_source == "shared_noise_index" else None,
        noise_given=batch.noise_given,
        checkpoint_sha256=batch.checkpoint_sha256,
        noise_algorithm=batch.noise_algorithm,
        model=batch.model,
        execution_provider=batch.execution_provider,
        runtime_version=batch.runtime_version,
    )


def codes_from_reply(reply: v1.InferCodesResponse, count: int, model: model_pb2.Model) -> InferredCodes:
    """The codes inferred from `count` samples.

    Raises:
        MalformedReplyError: If the reply is about another number of samples, or does not fit the model.
    """
    latent_space = model.latent_space
    per_category, per_style = (count, len(latent_space.categories)), (count, len(latent_space.styles))
    if len(reply.categories) != count:
        raise MalformedReplyError(f"the server's reply holds {len(reply.categories)} categories of {count} samples")
    _check_codes(reply.categories, reply.labels, latent_space)
    return InferredCodes(
        categories=np.array(reply.categories, np.int64),
        labels=np.array(reply.labels, np.str_),
        category_probability=_floats(
            reply.category_probability, "category probabilities", per_category, -_TOLERANCE, 1 + _TOLERANCE
        ),
        style_mean=_floats(reply.style_mean, "style means", per_style, -1 - _TOLERANCE, 1 + _TOLERANCE),
        style_std=_floats(reply.style_std, "style standard deviations", per_style, 0, 1 + _TOLERANCE),
        model=reply.model,
        checkpoint_sha256=reply.checkpoint_sha256,
    )


def _floats(
    tensor: tensor_pb2.Tensor, name: str, shape: tuple[int, ...], smallest: float, largest: float
) -> NDArray[np.float32]:
    array = from_tensor(tensor, name, tensor_pb2.DATA_TYPE_FLOAT32, shape)
    if not (np.isfinite(array) & (smallest <= array) & (array <= largest)).all():
        limits = "" if math.isinf(largest) else f", not all between {smallest:g} and {largest:g}"
        raise MalformedReplyError(f"the server's reply holds {name} that are not all finite{limits}")
    return array


def _check_codes(categories: Sequence[int], labels: Sequence[str], space: model_pb2.LatentSpace) -> None:
    if len(categories) != len(labels):
        raise MalformedReplyError(
            f"the server's reply holds {len(categories)} categories and {len(labels)} labels; their numbers must agree"
        )
    names = [category.label for category in space.categories]
    for category, label in zip(categories, labels, strict=True):
        if category >= len(names):
            raise MalformedReplyError(
                f"the server's reply holds category {category}; its model has {len(names)}, counted from 0"
            )
        if label != names[category]:
            raise MalformedReplyError(f"the server's reply gives category {category} another label than its model does")
