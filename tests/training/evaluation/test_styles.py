"""Styles of generators that slant and thicken real digits by known amounts."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.morphology import Morphometrics
from infosink.training.evaluation.styles import digit_constancy, measure_styles, variation_ratio
from infosink.training.latent import LatentSpace
from scipy.stats import spearmanr
from torch import Tensor

SPACE = LatentSpace(categories=10, styles=2, noise=3)
Generate = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def digits(mnist_directory) -> list[Tensor]:
    """The first hundred test images of every digit."""
    samples, labels = next(open_dataset("mnist", data_directory=mnist_directory).batches("test", 2_000))
    return [samples[labels == digit][:100] for digit in range(10)]


def sheared(images: Tensor, shear: Tensor) -> Tensor:
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    transformation = torch.stack([one, shear, zero, zero, one, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(transformation, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def thickened(images: Tensor, amount: Tensor) -> Tensor:
    return torch.lerp(images, F.max_pool2d(images, 3, stride=1, padding=1), amount[:, None, None, None])


@pytest.fixture(scope="module")
def generate(digits) -> Generate:
    """The category picks the digit, the first style thickens it, the second slants it, noise picks the writer."""

    def generator(latents: Tensor) -> Tensor:
        category, thickness, slant = SPACE.category_of(latents), latents[:, 10], latents[:, 11]
        writer = (torch.special.ndtr(latents[:, 12]) * 100).long().clamp(0, 99)
        images = torch.stack([digits[k][w] for k, w in zip(category, writer, strict=True)])
        return sheared(thickened(images, (thickness + 1) / 2), -0.5 * slant)

    return generator


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return SPACE.draw(3_000, torch.Generator().manual_seed(8))


def test_a_style_is_named_by_what_it_changes_most(generate, latents):
    thickness, slant = measure_styles(generate(latents), latents, SPACE)
    assert (thickness.name, slant.name) == ("ink", "slant")
    assert thickness.partial_correlation["ink"] > 0.65
    assert slant.partial_correlation["slant"] < -0.75
    assert slant.meaning == f"slant, partial rank correlation {slant.partial_correlation['slant']:.2f}"
    assert slant.meaning.startswith("slant, partial rank correlation -0.")
    assert thickness.meaning.startswith("ink, partial rank correlation 0.")
    # A thicker stroke is wider and taller too, a slanted one is not.
    for name in ("width", "height", "ink"):
        assert abs(slant.partial_correlation[name]) < 0.1
    assert abs(thickness.partial_correlation["slant"]) < 0.1
    assert tuple(slant.correlation) == tuple(slant.partial_correlation) == Morphometrics._fields


def test_a_style_of_weak_effect_has_a_correlation_but_no_name(generate, latents):
    weak = torch.cat([latents[:, :11], 0.25 * latents[:, 11:12], latents[:, 12:]], dim=1)
    _, slant = measure_styles(generate(weak), latents, SPACE)
    assert -0.45 < slant.partial_correlation["slant"] < -0.2
    assert (slant.name, slant.meaning) == ("style 2", "")


def test_with_one_other_code_the_partial_correlation_is_the_textbook_formula(generate, latents):
    """(ρ_xy − ρ_xz ρ_yz) / √((1 − ρ_xz²) (1 − ρ_yz²)), from scipy's ρ."""
    samples = generate(latents)
    space = LatentSpace(categories=1, styles=2, noise=0)
    ink = samples.double().mean(dim=(1, 2, 3))
    first, second = latents[:, 10], latents[:, 10] ** 3 + 0.2 * latents[:, 11] + 0.3 * ink.float()
    measured, _ = measure_styles(samples, torch.stack([torch.ones(3_000), first, second], dim=1), space)
    rho = spearmanr(torch.stack([first, ink, second], dim=1)).statistic
    xy, xz, yz = rho[0, 1], rho[0, 2], rho[1, 2]
    assert measured.correlation["ink"] == pytest.approx(xy)
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert measured.partial_correlation["ink"] == pytest.approx(expected)


def test_a_style_that_changes_nothing_keeps_its_number(generate, latents):
    silent = latents.clone()
    silent[:, 10:12] = 0
    for index, style in enumerate(measure_styles(generate(silent), latents, SPACE)):
        assert (style.name, style.meaning) == (f"style {index + 1}", "")
        assert all(abs(rho) < 5 / 3_000**0.5 for rho in (style.correlation | style.partial_correlation).values())


def test_a_code_that_only_goes_with_another_has_no_partial_correlation(generate, latents):
    confounded = latents.clone()
    confounded[:, 10] = (latents[:, 11] + 0.5 * latents[:, 10]) / 1.5
    samples = generate(torch.cat([latents[:, :10], torch.zeros(3_000, 1), latents[:, 11:]], dim=1))
    bystander, slant = measure_styles(samples, confounded, SPACE)
    assert bystander.correlation["slant"] < -0.7
    assert abs(bystander.partial_correlation["slant"]) < 0.1
    assert slant.partial_correlation["slant"] < -0.5
    assert (bystander.name, slant.name) == ("style 1", "slant")


def test_a_code_that_only_goes_with_the_category_has_no_partial_correlation(latents, digits):
    confounded = latents.clone()
    category = SPACE.category_of(latents)
    confounded[:, 10] = 0.9 * (category == 1) - 0.5 + 0.1 * latents[:, 10]
    writer = torch.arange(3_000) % 100
    samples = torch.stack([digits[k][w] for k, w in zip(category, writer, strict=True)])
    style, _ = measure_styles(samples, confounded, SPACE)
    assert style.correlation["width"] < -0.2  # a one is narrow
    assert all(abs(rho) < 5 / 3_000**0.5 for rho in style.partial_correlation.values())


def test_two_styles_never_bear_one_name(latents):
    ink = torch.zeros(3_000, 1, 32, 32)
    ink[:, :, 8:24, 14:17] = 1
    weaker_and_stronger = 0.3 * latents[:, 10] + 0.4 * latents[:, 11]
    styles = measure_styles(sheared(ink * 2 - 1, weaker_and_stronger), latents, SPACE)
    assert [style.name for style in styles] == ["style 1", "slant"]
    assert styles[0].partial_correlation["slant"] > 0.5


def test_images_that_the_category_decides_leave_nothing_to_correlate(latents):
    patterns = torch.rand(10, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for style in measure_styles(patterns[SPACE.category_of(latents)], latents, SPACE):
        assert set(style.partial_correlation.values()) == {0.0}
    for style in measure_styles(torch.full((3_000, 1, 8, 8), -1.0), latents, SPACE):
        assert set(style.correlation.values()) == set(style.partial_correlation.values()) == {0.0}


@pytest.mark.parametrize(("samples", "latents"), [(30, 31), (13, 13)])
def test_samples_that_cannot_tell_the_codes_apart_are_refused(samples, latents):
    with pytest.raises(ValueError, match=f"{samples} samples of {latents} latents cannot tell 12 codes apart"):
        measure_styles(torch.zeros(samples, 1, 8, 8), torch.zeros(latents, SPACE.dimension), SPACE)


def levels(latents: Tensor) -> Tensor:
    """Images whose level stands for a digit: the category, or the next one where the second style is above 0.5."""
    digit = (SPACE.category_of(latents) + (latents[:, 11] > 0.5)) % 10
    return (0.1 * digit + 0.05)[:, None, None, None].expand(-1, 1, 4, 4)


class LevelJudge:
    """Reads the digit off the level."""

    def probabilities(self, images: Tensor) -> Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 10).floor().long(), 10).float()


def test_constancy_is_the_share_of_steps_that_keep_the_digit():
    def constancy(style: int, steps: int) -> float:
        return digit_constancy(levels, SPACE, LevelJudge(), style, torch.Generator().manual_seed(2), steps=steps)

    assert constancy(0, 11) == constancy(0, 3) == 1
    assert constancy(1, 11) == 0.7  # 0.6, 0.8 and 1 of -1, ..., 1 without 0
    assert constancy(1, 3) == 0.5


def test_the_middle_of_a_sweep_is_not_counted():
    def restless(latents: Tensor) -> Tensor:
        """Away from the middle every image is of another digit."""
        return (0.05 + 0.1 * (latents[:, 10] != 0))[:, None, None, None].expand(-1, 1, 4, 4)

    assert digit_constancy(restless, SPACE, LevelJudge(), 0, torch.Generator()) == 0


def test_the_variation_ratio_compares_central_ranges_of_style_and_noise():
    """A unit moves points by 3 and 1 for the styles, by 2 on average over the first 8 noise variables."""
    space = LatentSpace(categories=10, styles=2, noise=10)
    shifts = torch.tensor([3.0, 1.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 50.0, 50.0])

    def linear(latents: Tensor) -> Tensor:
        return torch.stack([latents[:, 10:] @ shifts, torch.ones(len(latents))], dim=1)

    random = torch.Generator().manual_seed(5)
    assert variation_ratio(linear, space, 0, random) == pytest.approx(3 * 0.9 / (2 * 1.6448536), rel=1e-5)
    assert variation_ratio(linear, space, 1, random) == pytest.approx(1 * 0.9 / (2 * 1.6448536), rel=1e-5)


def test_without_noise_that_moves_the_sample_there_is_no_ratio():
    random = torch.Generator().manual_seed(5)
    assert variation_ratio(levels, SPACE, 1, random) is None
    assert variation_ratio(levels, LatentSpace(10, 2, 0), 1, random) is None


def test_styles_steps_and_sweeps_that_do_not_exist_are_refused():
    random = torch.Generator()
    for style in (-1, 2):
        with pytest.raises(ValueError, match=f"there is no style {style}: the latent space has 2"):
            variation_ratio(levels, SPACE, style, random)
        with pytest.raises(ValueError, match=f"there is no style {style}: the latent space has 2"):
            digit_constancy(levels, SPACE, LevelJudge(), style, random)
    for sweeps, steps in ((0, 11), (5, 4), (5, 1)):
        with pytest.raises(ValueError, match=f"{sweeps} sweeps of {steps} steps: ask for"):
            digit_constancy(levels, SPACE, LevelJudge(), 0, random, sweeps=sweeps, steps=steps)
    with pytest.raises(ValueError, match="0 sweeps"):
        variation_ratio(levels, SPACE, 0, random, sweeps=0)
