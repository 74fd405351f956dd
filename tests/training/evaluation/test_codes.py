"""What Q reads from generators that show their code, whole or not at all."""

import math

import numpy as np
import pytest
import torch
from infosink.training.code_distribution import DotProduct, LogDensity
from infosink.training.evaluation.codes import CodeReading, code_reading
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks
from torch import Tensor, nn

SPACE = LatentSpace(categories=8, styles=1, noise=3)
PARAMETRISATIONS = pytest.mark.parametrize("parametrisation", [DotProduct, LogDensity])
SURE = 60.0


def read(
    weight: Tensor,
    parametrisation: type[DotProduct | LogDensity] = DotProduct,
    count: int = 4_000,
    generator: nn.Module | None = None,
    average: nn.Module | None = None,
) -> CodeReading:
    """The reading where Q's scores are weight · sample, and the sample the latent itself but for a generator."""
    networks = Networks((2,), SPACE, code_outputs=len(weight)).eval()
    networks.generator, networks.averaged_generator = generator or nn.Identity(), average
    networks.trunk = nn.Identity()
    networks.code_head = nn.Linear(SPACE.dimension, len(weight), bias=False)
    networks.code_head.weight.data = weight
    q = parametrisation(SPACE.categories, SPACE.styles)
    return code_reading(networks, q, SPACE, count, torch.Generator().manual_seed(4))


class Blank(nn.Module):
    """A generator whose samples show nothing of their latents."""

    def forward(self, latents: Tensor) -> Tensor:
        return torch.zeros_like(latents)


def silence(parametrisation: type[DotProduct | LogDensity]) -> Tensor:
    """Weights that score every code alike."""
    return torch.zeros(parametrisation(SPACE.categories, SPACE.styles).outputs, SPACE.dimension)


@PARAMETRISATIONS
def test_a_category_read_without_doubt_carries_log_k(parametrisation):
    weight = silence(parametrisation)
    weight[:8, :8] = SURE * torch.eye(8)
    reading = read(weight, parametrisation)
    assert reading.recovery == 1
    assert reading.recovery_by_category == [1] * 8
    # Scores of 0 leave the style to the uniform law, or to a normal one of deviation 1 about 0.
    style = 0.0
    if parametrisation is LogDensity:
        mass = math.erf(1 / math.sqrt(2)) / 2 * math.sqrt(2 * math.pi)
        style = -1 / 6 - math.log(mass)
    assert reading.information == pytest.approx(math.log(8) + style, abs=2e-3)


def test_a_q_that_ignores_the_sample_reads_nothing():
    reading = read(silence(DotProduct))
    assert reading.information == pytest.approx(0, abs=1e-6)
    assert reading.recovery == 1 / 8
    assert sorted(reading.recovery_by_category) == [0] * 7 + [1]


def test_a_q_that_is_sure_of_the_wrong_category_reads_less_than_nothing():
    weight = silence(DotProduct)
    weight[:8, :8] = 3 * torch.eye(8).roll(1, 0)
    reading = read(weight)
    assert reading.recovery == 0
    assert reading.information == pytest.approx(math.log(8) - math.log(math.exp(3) + 7), abs=1e-5)


def test_a_style_adds_what_its_tilted_law_carries():
    """E t b − log(sinh b / b) with b = 5 t and t uniform on [-1, 1]."""
    weight = silence(DotProduct)
    weight[8, 8] = 5
    t, weights = np.polynomial.legendre.leggauss(200)
    b = 5 * t
    gain = b * t - np.log(np.sinh(b) / b)
    expected = float(weights @ gain) / 2
    error = math.sqrt(float(weights @ (gain - expected) ** 2) / 2 / 100_000)
    assert abs(read(weight, count=100_000).information - expected) < 4 * error


def test_recovery_is_told_apart_by_category():
    weight = silence(DotProduct)
    weight[:8, :8] = SURE * torch.eye(8)
    weight[2, 5], weight[5, 5] = SURE, 0  # 5 is taken for 2
    weight[8, 8] = 2 * SURE  # scores of styles are no scores of categories
    reading = read(weight, count=4_001)
    assert reading.recovery_by_category == [1, 1, 1, 1, 1, 0, 1, 1]
    assert reading.recovery == pytest.approx(1 - 500 / 4_001)


def test_the_samples_are_of_the_averaged_generator_where_there_is_one():
    weight = silence(DotProduct)
    weight[:8, :8] = SURE * torch.eye(8)
    assert read(weight, generator=Blank(), average=nn.Identity()).recovery == 1
    assert read(weight, average=Blank()).recovery == 1 / 8


def test_fewer_samples_than_categories_are_refused():
    with pytest.raises(ValueError, match="7 samples leave some of 8 categories out: ask for 8 or more"):
        read(silence(DotProduct), count=7)
