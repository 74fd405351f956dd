"""What samples look like: the model's frame, and the data set's own, native frame inside it."""

import math

import numpy as np
from infosink.v1 import model_pb2
from numpy.typing import NDArray

from .errors import MalformedReplyError

# Far more than one message holds.
_LARGEST_SAMPLE = 1 << 26


def check_space(space: model_pb2.SampleSpace) -> None:
    """Makes sure that samples of this space can exist.

    Raises:
        MalformedReplyError: If it is neither of images nor of points, or its sizes make no sense.
    """
    if space.HasField("point"):
        sizes = {"dimensions": space.point.dimensions}
    elif space.HasField("image"):
        image = space.image
        sizes = {"channels": image.channels, "height": image.height, "width": image.width}
    else:
        raise MalformedReplyError("the server describes a model that generates neither images nor points")
    for name, size in sizes.items():
        if size < 1:
            raise MalformedReplyError(f"the server describes samples of {name} {size}; it must be at least 1")
    if math.prod(sizes.values()) > _LARGEST_SAMPLE:
        raise MalformedReplyError(
            f"the server describes samples of {sizes}; they have at most {_LARGEST_SAMPLE:,} values"
        )
    if space.HasField("image"):
        height, width = native_size(space.image)
        if height < 1 or width < 1 or space.image.background > 255:
            raise MalformedReplyError(
                f"the server describes a native frame of {height} x {width} on grey level {space.image.background}; "
                "it must have an area, and a level of at most 255"
            )


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
