"""The two frames of an image: the model's, and the data set's own, which lies inside it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from infosink.v1.model_pb2 import ImageSpace

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frames:
    """The geometry and the grey levels of a model's images."""

    space: ImageSpace

    @property
    def model_size(self) -> tuple[int, int]:
        """Height and width of the model's frame."""
        return self.space.height, self.space.width

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of the native frame: the model's without its padding."""
        return (
            self.space.height - self.space.padding_top - self.space.padding_bottom,
            self.space.width - self.space.padding_left - self.space.padding_right,
        )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes in which images are accepted, the native one first, each once."""
        return tuple(dict.fromkeys([self.native_size, self.model_size]))

    def crop(self, pixels: Pixels) -> Pixels:
        """[batch, height, width, channels] in the model's frame to the native frame."""
        top, left = self.space.padding_top, self.space.padding_left
        height, width = self.native_size
        return pixels[:, top : top + height, left : left + width]

    def from_pixels(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """[batch, height, width, channels] in either frame to what the encoder reads.

        Level v becomes minimum + v (maximum - minimum) / 255; the native frame is surrounded by the background level.

        Returns:
            float32 [batch, channels, height, width] in the model's frame.
        """
        return self.from_values(np.moveaxis(self._values(pixels), -1, 1))

    def from_values(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [batch, channels, height, width] in either frame to the model's frame.

        Raises:
            ValueError: If height and width are of neither frame.
        """
        size = values.shape[2:]
        if size == self.model_size:
            return np.ascontiguousarray(values)
        if size != self.native_size:
            raise ValueError(f"images of {size} pixels are in neither frame, {self.native_size} nor {self.model_size}")
        space = self.space
        padding = (
            (0, 0),
            (0, 0),
            (space.padding_top, space.padding_bottom),
            (space.padding_left, space.padding_right),
        )
        background = self._values(np.array(space.background, np.uint8))
        return np.pad(values, padding, constant_values=background)

    def _values(self, levels: Pixels) -> npt.NDArray[np.float32]:
        step = (self.space.maximum - self.space.minimum) / 255
        return (self.space.minimum + levels.astype(np.float64) * step).astype(np.float32)


def largest_encoding(height: int, width: int, channels: int) -> int:
    """An upper bound on the bytes of a PNG of these pixels.

    Noise does not compress: zlib then stores it, with a few bytes for each block of up to 16 KiB, and each chunk of the
    file adds twelve.
    """
    stored = height * (1 + width * channels)
    return stored + stored // 256 + 256
