"""Labelled images, kept on the training device as the bytes they came in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .dataset import DatasetError, ImageFrame, Split, require_positive


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
        test: Images for the final judgement.
        facts: Where the images came from, for `describe`.
        validation: Training images that were held out for tuning; None without any.
    """

    name: str
    frame: ImageFrame
    label_names: tuple[str, ...]
    training: LabelledPixels
    test: LabelledPixels
    facts: Mapping[str, object]
    validation: LabelledPixels | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (channels, height, width) of the model's frame."""
        return (self.frame.channels, self.frame.height, self.frame.width)

    def to(self, device: torch.device) -> Self:
        """Returns the same images on `device`, where `draw` and `batches` then give their samples."""
        validation = None if self.validation is None else self.validation.to(device)
        return replace(self, training=self.training.to(device), test=self.test.to(device), validation=validation)

    def hold_out(self, count: int) -> Self:
        """Moves training images, evenly spaced in their order, to the validation split.

        Args:
            count: How many, at least 1 and at most half of the training images.

        Raises:
            DatasetError: If it is neither.
        """
        pixels, labels = self.training
        if not 1 <= count <= len(pixels) // 2:
            raise DatasetError(
                f"{count:,} of {len(pixels):,} training images cannot be held out. "
                f"Hold out 1 to {len(pixels) // 2:,} with --hold-out."
            )
        held_out = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        held_out[torch.arange(count, device=pixels.device) * len(pixels) // count] = True
        training, validation = (
            LabelledPixels(pixels[chosen], None if labels is None else labels[chosen])
            for chosen in (~held_out, held_out)
        )
        return replace(self, training=training, validation=validation)

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
        images = {"training": self.training, "validation": self.validation, "test": self.test}[split]
        if images is None:
            raise DatasetError(
                "No training images were held out for validation. Train with --hold-out, or take the test images."
            )
        pixels, labels = images
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
            **({} if self.validation is None else {"validation_samples": len(self.validation.pixels)}),
            "test_samples": len(self.test.pixels),
            "sample_shape": list(self.sample_shape),
        }
