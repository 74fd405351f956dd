"""Image moments of shapes with known moments, and of digits under known transformations."""

import math

import pytest
import torch
import torch.nn.functional as F
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.morphology import Morphometrics, morphometrics, why_no_strokes
from torch import Tensor


@pytest.fixture(scope="module")
def digits(mnist_directory) -> Tensor:
    """A thousand test images, framed wide enough that no shear below cuts them."""
    samples, _ = next(open_dataset("mnist", data_directory=mnist_directory).batches("test", 1_000))
    return F.pad(samples, (8, 8, 8, 8), value=-1.0)


def picture(ink: Tensor) -> Tensor:
    """One image in [-1, 1] of ink (height, width) in [0, 1]."""
    return ink[None, None] * 2 - 1


def bar(width: int, height: int, columns_per_row: int = 0) -> Tensor:
    """A bar of full ink on 32 x 32 pixels, its top moved to the right of its bottom by columns_per_row a row."""
    ink = torch.zeros(32, 32)
    for v in range(height):
        left = 14 + columns_per_row * (height // 2 - v)
        ink[8 + v, left : left + width] = 1
    return picture(ink)


def deviation(pixels: int) -> float:
    """Of a run of so many pixels."""
    return math.sqrt((pixels**2 - 1) / 12)


def measured(images: Tensor) -> Morphometrics:
    return Morphometrics(*(measure.item() for measure in morphometrics(images)))


@pytest.mark.parametrize("columns_per_row", [-2, -1, 0, 1, 2])
def test_a_bar_that_leans_to_the_right_has_a_positive_slant(columns_per_row):
    expected = (columns_per_row, deviation(3), deviation(9), 27 / 1024)
    assert measured(bar(3, 9, columns_per_row)) == pytest.approx(expected)


def test_width_and_height_scale_with_the_shape():
    narrow, wide, tall = measured(bar(4, 6)), measured(bar(8, 6)), measured(bar(4, 12))
    assert (narrow.width, wide.width) == pytest.approx((deviation(4), deviation(8)))
    assert (narrow.height, tall.height) == pytest.approx((deviation(6), deviation(12)))
    assert wide.height == pytest.approx(narrow.height)
    assert tall.width == pytest.approx(narrow.width)


def test_ink_is_the_share_of_full_ink_whatever_the_channels():
    grey = picture(torch.full((4, 6), 0.25))
    assert measured(grey).ink == pytest.approx(0.25)
    coloured = torch.cat([grey, grey, picture(torch.full((4, 6), 0.7))], dim=1)
    assert measured(coloured).ink == pytest.approx(0.4)


def test_paler_ink_changes_ink_alone():
    full = bar(3, 9, 1)
    pale = (full + 1) / 2 - 1
    assert measured(pale) == pytest.approx(measured(full)._replace(ink=27 / 2048))


def test_a_larger_frame_and_another_place_change_no_shape(digits):
    framed = F.pad(digits[:50], (5, 0, 0, 3), value=-1.0)
    for name in ("slant", "width", "height"):
        before, after = (getattr(morphometrics(images), name) for images in (digits[:50], framed))
        torch.testing.assert_close(after, before, atol=1e-9, rtol=1e-9)


def test_what_has_no_meaning_is_zero():
    dot = torch.zeros(8, 8)
    dot[3, 5] = 0.3
    assert measured(torch.full((1, 1, 8, 8), -1.0)) == (0, 0, 0, 0)
    assert measured(picture(dot)) == pytest.approx((0, 0, 0, 0.3 / 64), abs=1e-7)


def test_ink_in_one_row_has_a_width_but_no_slant():
    images = torch.full((100, 1, 32, 32), -1.0)
    images[:, 0, 21] = torch.rand(100, 32, generator=torch.Generator().manual_seed(6)) * 2 - 1
    rows = morphometrics(images)
    assert (rows.slant == 0).all()
    torch.testing.assert_close(rows.height, torch.zeros(100, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (rows.width > 5).all()


def test_one_blank_image_among_others_spoils_none():
    blank = torch.full((1, 1, 32, 32), -1.0)
    together = morphometrics(torch.cat([blank, bar(3, 9, 1)]))
    assert torch.stack(together)[:, 0].tolist() == [0, 0, 0, 0]
    assert torch.stack(together)[:, 1].tolist() == pytest.approx(measured(bar(3, 9, 1)))


@pytest.mark.parametrize("shear", [-0.4, 0.15, 0.6])
def test_a_shear_adds_to_the_slant_of_digits_and_leaves_width_and_height(digits, shear):
    transformation = torch.tensor([[1.0, shear, 0.0], [0.0, 1.0, 0.0]]).expand(len(digits), 2, 3)
    grid = F.affine_grid(transformation, list(digits.shape), align_corners=False)
    sheared = F.grid_sample(digits + 1, grid, align_corners=False) - 1
    before, after = morphometrics(digits), morphometrics(sheared)
    torch.testing.assert_close(after.slant, before.slant + shear, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.height, before.height, atol=1e-4, rtol=0)
    # Interpolation between two columns blurs by a variance of 1/4 at most.
    blur = after.width.square() - before.width.square()
    assert ((blur > -1e-3) & (blur < 0.25 + 1e-3)).all()


def test_digits_are_strokes_grey_or_in_equal_channels(digits):
    assert why_no_strokes(digits) is None
    assert why_no_strokes(digits[:20].expand(-1, 3, -1, -1)) is None


def test_what_is_no_bright_stroke_on_a_dark_ground_is_told_why(digits):
    assert why_no_strokes(-digits).startswith("only ")
    assert why_no_strokes(-digits).endswith("% of their pixels are darker than mid-grey")
    coloured = digits[:20].repeat(1, 3, 1, 1)
    coloured[7, 2] -= 0.1
    assert why_no_strokes(coloured) == "they are coloured"
    # The moments would be those of the ground, and the slant the wrong way about.
    assert measured(-bar(3, 9, 1)).slant < 0 < measured(bar(3, 9, 1)).slant


def test_points_are_no_images():
    with pytest.raises(ValueError, match=r"shape \(5, 2\) are no images"):
        morphometrics(torch.zeros(5, 2))
