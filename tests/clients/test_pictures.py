"""Grids and scatters."""

import numpy as np
import pytest
from infosink.clients.pictures import category_colour, grid, grid_size, magnification, near_square, scatter


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (10_000, 100)])
def test_a_grid_is_near_square(count: int, columns: int) -> None:
    assert near_square(count) == columns


@pytest.mark.parametrize(("size", "scale"), [(6, 8), (28, 2), (32, 2), (48, 1), (64, 1)])
def test_small_images_are_enlarged(size: int, scale: int) -> None:
    assert magnification(size, size) == scale


def test_colour_images_keep_their_place_and_the_last_row_its_gaps() -> None:
    images = np.random.default_rng(0).integers(0, 200, (5, 28, 24, 3), np.uint8)
    pixels = np.asarray(grid(images, columns=3))
    assert pixels.shape == (*grid_size(5, 3, 28, 24), 3) == (2 * 58 + 2, 3 * 50 + 2, 3)
    for index, image in enumerate(images):
        y, x = 2 + index // 3 * 58, 2 + index % 3 * 50
        assert np.array_equal(pixels[y : y + 56 : 2, x : x + 48 : 2], image)
    gutters = pixels.copy()
    for index in range(5):
        y, x = 2 + index // 3 * 58, 2 + index % 3 * 50
        gutters[y : y + 56, x : x + 48] = 255
    assert (gutters == 255).all()


def test_a_scatter_draws_each_category_in_its_colour_and_in_its_place() -> None:
    points = np.array([[0, 0], [10, 0], [10, 10]], np.float32)
    picture = scatter(points, np.array([0, 1, 2]))
    size = picture.width
    assert picture.getpixel((24, size - 24)) == category_colour(0)
    assert picture.getpixel((size - 24, size - 24)) == category_colour(1)
    assert picture.getpixel((size - 24, 24)) == category_colour(2)
    assert len({category_colour(category) for category in range(25)}) == 25


def test_one_point_can_be_drawn() -> None:
    picture = scatter(np.array([[3, -2]], np.float32), np.array([4]))
    assert picture.getpixel((picture.width // 2, picture.height // 2)) == category_colour(4)
