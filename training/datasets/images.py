"""Labelled images, kept on the training device as the bytes they came in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .dataset import ImageFrame, Split, require_positive


class LabelledPixels(NamedTuple):
    """The images of one split and what they show.

    Attributes:
        pixels: uint8 levels in the native frame, shape (count, channels, native height, native width).
        labels: int64 indices into the data set's label names, shape (count,); None where the data has no labels.
    """

    pixels: Tensor
    labels: Tensor | None

    def to(self, device: torch.device) -> "LabelledPixels":
        """Returns the same images on `device`."""
        return LabelledPixels(self.pixels.to(device), None if self.labels is None else self.labels.to(device))


@dataclass(frozen=True)
class ImageDataset:
    """Images in memory: one byte a pixel in the native frame, padded and scaled to [-1, 1] only when drawn.

    Attributes:
        name: The data set's name.
        frame: Where the native images lie in the model's frame.
        label_names: What the labels stand for; empty where the data has none.
        training: The images that ν, the distribution to learn, is uniform on.
        test: Held-out images.
        facts: Where the images came from, for `describe`.
    """

    name: str
    frame: ImageFrame
    label_names: tuple[str, ...]
    training: LabelledPixels
    test: LabelledPixels
    facts: Mapping[str, object]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (channels, height, width) of the model's frame."""
        return (self.frame.channels, self.frame.height, self.frame.width)

    def to(self, device: torch.device) -> Self:
        """Returns the same images on `device`, where `draw` and `batches` then give their samples."""
        return replace(self, training=self.training.to(device), test=self.test.to(device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws i.i.d. samples y ~ ν, with replacement, from the training images.

        Args:
            count: How many.
            generator: The source of randomness, on the images' device.

        Returns:
            float32 in [-1, 1], shape (count, channels, height, width).
        """
        pixels = self.training.pixels
        chosen = torch.randint(len(pixels), (count,), generator=generator, device=pixels.device)
        return self.frame.samples(pixels[chosen])

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Goes through one split once, in its own order; see `Dataset.batches`."""
        require_positive(size)
        pixels, labels = self.training if split == "training" else self.test
        return (
            (
                self.frame.samples(pixels[start : start + size]),
                None if labels is None else labels[start : start + size],
            )
            for start in range(0, len(pixels), size)
        )

    def describe(self) -> dict[str, object]:
        """Returns JSON-able facts: name, source, sizes and SHA-256."""
        return {
            "name": self.name,
            **self.facts,
            "training_samples": len(self.training.pixels),
            "test_samples": len(self.test.pixels),
            "sample_shape": list(self.sample_shape),
        }
