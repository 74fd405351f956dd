"""The messages of `infosink.v1` as numpy arrays, and back."""

import math
from collections.abc import Sized
from typing import Any

import numpy as np
from infosink.v1 import model_pb2, tensor_pb2
from infosink.v1 import sampling_service_pb2 as v1
from numpy.typing import NDArray

from .errors import MalformedReplyError
from .results import InferredCodes, Samples

# The wire is little-endian whatever the machine is.
_WIRE_TYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}


def to_tensor(array: NDArray[Any]) -> tensor_pb2.Tensor:
    """A uint8 array as it is, any other as float32.

    Args:
        array: Any shape and byte order.
    """
    data_type = tensor_pb2.DATA_TYPE_UINT8 if array.dtype == np.uint8 else tensor_pb2.DATA_TYPE_FLOAT32
    data = array.astype(_WIRE_TYPES[data_type]).tobytes(order="C")
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=data)


def from_tensor(tensor: tensor_pb2.Tensor, name: str) -> NDArray[Any]:
    """A writable array in the machine's byte order.

    Raises:
        MalformedReplyError: If the element type is unknown, or the length does not fit the shape; `name` says of what.
    """
    wire_type = _WIRE_TYPES.get(tensor.data_type)
    shape = tuple(tensor.shape)
    if wire_type is None or not shape:
        raise MalformedReplyError(
            f"the server's reply holds {name} of shape {list(shape)} and element type {tensor.data_type}; "
            f"arrays of the element types {list(_WIRE_TYPES)} are known"
        )
    expected = math.prod(shape) * wire_type.itemsize
    if len(tensor.data) != expected:
        raise MalformedReplyError(
            f"the server's reply holds {len(tensor.data)} bytes of {name}; its shape {list(shape)} needs {expected}"
        )
    return np.frombuffer(tensor.data, wire_type).reshape(shape).astype(wire_type.newbyteorder("="))


def native_size(space: model_pb2.ImageSpace) -> tuple[int, int]:
    """The height and width of the data set's own images, which lie inside the model's frame."""
    return (
        space.height - space.padding_top - space.padding_bottom,
        space.width - space.padding_left - space.padding_right,
    )


def crop_to_native(images: NDArray[np.uint8], space: model_pb2.ImageSpace) -> NDArray[np.uint8]:
    """[n, height, width, channels] in the model's frame -> the same in the native frame."""
    height, width = native_size(space)
    top, left = space.padding_top, space.padding_left
    return np.ascontiguousarray(images[:, top : top + height, left : left + width])


def pad_to_model(images: NDArray[np.uint8], space: model_pb2.ImageSpace) -> NDArray[np.uint8]:
    """[n, height, width, channels] in the native frame -> the same in the model's, surrounded by its background."""
    rows, columns = (space.padding_top, space.padding_bottom), (space.padding_left, space.padding_right)
    return np.pad(images, ((0, 0), rows, columns, (0, 0)), constant_values=space.background)


def samples_from_batch(batch: v1.SampleBatch, model: model_pb2.Model) -> Samples:
    """The batch's samples, images cropped to the native frame.

    Raises:
        MalformedReplyError: If the batch does not fit the model's description of itself.
    """
    samples = from_tensor(batch.tensor, "samples")
    style = from_tensor(batch.style, "style values")
    space = model.sample_space
    if space.HasField("image"):
        image = space.image
        _check_shape("samples", samples, (len(samples), image.height, image.width, image.channels))
        samples = crop_to_native(samples, image)
    else:
        _check_shape("samples", samples, (len(samples), space.point.dimensions))
    _check_shape("style values", style, (len(samples), len(model.latent_space.styles)))
    _check_codes(batch.categories, batch.labels, len(samples))
    return Samples(
        samples=samples,
        categories=np.array(batch.categories, np.int64),
        labels=np.array(batch.labels, np.str_),
        style=style,
        seed=batch.seed,
        first_index=batch.first_index,
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
    probability = from_tensor(reply.category_probability, "category probabilities")
    mean, std = from_tensor(reply.style_mean, "style means"), from_tensor(reply.style_std, "style standard deviations")
    _check_shape("category probabilities", probability, (count, len(model.latent_space.categories)))
    _check_shape("style means", mean, (count, len(model.latent_space.styles)))
    _check_shape("style standard deviations", std, (count, len(model.latent_space.styles)))
    _check_codes(reply.categories, reply.labels, count)
    return InferredCodes(
        categories=np.array(reply.categories, np.int64),
        labels=np.array(reply.labels, np.str_),
        category_probability=probability,
        style_mean=mean,
        style_std=std,
        model=reply.model,
        checkpoint_sha256=reply.checkpoint_sha256,
    )


def _check_codes(categories: Sized, labels: Sized, count: int) -> None:
    if not len(categories) == len(labels) == count:
        raise MalformedReplyError(
            f"the server's reply holds {count} samples, {len(categories)} categories and {len(labels)} labels; "
            "their numbers must agree"
        )


def _check_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise MalformedReplyError(
            f"the server's reply holds {name} of shape {list(array.shape)}; its model needs {list(shape)}"
        )
