"""Pixels in either frame become the values the encoder was trained on."""

import numpy as np
import pytest
from infosink.serving.models.frames import Frames
from infosink.v1.model_pb2 import ImageSpace

PADDING = {"padding_top": 1, "padding_left": 2, "padding_bottom": 3, "padding_right": 0}
FRAMES = Frames(ImageSpace(channels=3, height=9, width=7, background=77, minimum=-1, maximum=1, **PADDING))


@pytest.fixture
def native() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)


def test_the_native_frame_is_padded_with_the_background(native: np.ndarray) -> None:
    padded = np.pad(native, ((0, 0), (1, 3), (2, 0), (0, 0)), constant_values=77)
    values = FRAMES.from_pixels(native)
    assert values.shape == (4, 3, 9, 7)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, FRAMES.from_pixels(padded))
    np.testing.assert_array_equal(FRAMES.crop(padded), native)


def test_levels_become_values(native: np.ndarray) -> None:
    values = FRAMES.from_pixels(native)[:, :, 1:6, 2:]
    np.testing.assert_allclose(values, native.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-7)
    unit = Frames(ImageSpace(channels=1, height=1, width=3, minimum=0, maximum=1))
    np.testing.assert_array_equal(
        unit.from_pixels(np.uint8([0, 51, 255]).reshape(1, 1, 3, 1)).ravel(), np.float32([0, 0.2, 1])
    )


def test_values_are_padded_as_pixels_are(native: np.ndarray) -> None:
    values = FRAMES.from_pixels(native)
    np.testing.assert_array_equal(FRAMES.from_values(values[:, :, 1:6, 2:]), values)
    np.testing.assert_array_equal(FRAMES.from_values(values), values)


@pytest.mark.parametrize("size", [(5, 6), (7, 9), (9, 5), (1, 1)])
def test_other_sizes_are_in_neither_frame(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="neither frame"):
        FRAMES.from_pixels(np.zeros((2, *size, 3), np.uint8))
    with pytest.raises(ValueError, match="neither frame"):
        FRAMES.from_values(np.zeros((2, 3, *size), np.float32))


def test_sizes_are_named_once() -> None:
    assert FRAMES.sizes == ((5, 5), (9, 7))
    assert Frames(ImageSpace(channels=1, height=4, width=3)).sizes == ((4, 3),)
