"""What every data set offers to training and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

Split = Literal["training", "validation", "test"]


class DatasetError(Exception):
    """Data that cannot be used; the message says what is wrong, the limit and the remedy."""


@dataclass(frozen=True)
class ImageFrame:
    """The frame that networks see, and where the data's own images, the native frame, lie inside it.

    Attributes:
        channels: 1 for grey images, 3 for RGB.
        height: Rows of the model's frame.
        width: Columns of the model's frame.
        padding_top: Rows above the native frame.
        padding_left: Columns left of the native frame.
        padding_bottom: Rows below the native frame.
        padding_right: Columns right of the native frame.
        background: The level, 0 to 255, that fills the padding.
    """

    channels: int
    height: int
    width: int
    padding_top: int = 0
    padding_left: int = 0
    padding_bottom: int = 0
    padding_right: int = 0
    background: int = 0

    @property
    def native_height(self) -> int:
        """Rows of the data's own images."""
        return self.height - self.padding_top - self.padding_bottom

    @property
    def native_width(self) -> int:
        """Columns of the data's own images."""
        return self.width - self.padding_left - self.padding_right

    def samples(self, pixels: Tensor) -> Tensor:
        """Pads native images with the background and scales level v to v / 127.5 - 1.

        Args:
            pixels: uint8, shape (count, channels, native height, native width).

        Returns:
            float32 in [-1, 1], shape (count, channels, height, width).
        """
        padding = (self.padding_left, self.padding_right, self.padding_top, self.padding_bottom)
        return F.pad(pixels, padding, value=self.background).float() / 127.5 - 1

    def native(self, images: Tensor) -> Tensor:
        """Crops images (..., height, width) of the model's frame to the native frame."""
        rows = slice(self.padding_top, self.padding_top + self.native_height)
        return images[..., rows, self.padding_left : self.padding_left + self.native_width]


class Dataset(Protocol):
    """Samples of ν, the distribution to learn. A data set lives on one device, the CPU at first."""

    @property
    def name(self) -> str:
        """The name that `open_dataset` knows it by."""
        ...

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample as the networks see it: (channels, height, width) of an image, (2,) of a point."""
        ...

    @property
    def frame(self) -> ImageFrame | None:
        """Where the data's own images lie in the model's frame; None for points."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """What the labels stand for; empty where the data has none."""
        ...

    def to(self, device: torch.device) -> Self:
        """Returns the same data on `device`."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws i.i.d. samples y ~ ν.

        Args:
            count: How many.
            generator: The source of randomness, on the data's device.

        Returns:
            float32, shape (count, *sample_shape); images in [-1, 1].
        """
        ...

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Goes through one split once, in an order that never changes.

        Args:
            split: "training", "test", or "validation", the training samples that were held out.
            size: Samples in a batch; the last batch may be smaller.

        Returns:
            Pairs of samples, float32 of shape (batch, *sample_shape), and labels, int64 indices into `label_names`
            of shape (batch,), or None where the data has no labels.

        Raises:
            DatasetError: If `size` is not positive, or nothing was held out for validation.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Returns JSON-able facts to be kept with what is trained on the data: name, source, sizes, SHA-256."""
        ...


def require_positive(size: int) -> None:
    """Refuses a batch size below 1.

    Raises:
        DatasetError: If `size` is below 1.
    """
    if size < 1:
        raise DatasetError(f"A batch of {size} samples is empty. Ask for at least 1.")
