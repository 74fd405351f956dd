"""The tilted uniform law against quadrature."""

import numpy as np
import pytest
import torch
from infosink.training.tilted_uniform import log_sinhc, tilted_mean, tilted_variance

TILTS = [0.0, 1e-6, 0.1, -0.3, 0.4999, 0.5001, -0.7, 2.0, -9.0, 40.0]


def quadrature(b: float) -> tuple[float, float, float]:
    """The log partition function, mean and variance of ½ exp(b t) on [-1, 1], by Gauss-Legendre."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    density = 0.5 * weights * torch.exp(b * nodes - abs(b))
    total = density.sum()
    mean = (density * nodes).sum() / total
    return total.log().item() + abs(b), mean.item(), ((density * (nodes - mean) ** 2).sum() / total).item()


@pytest.mark.parametrize("b", TILTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-6)])
def test_the_style_posterior_is_the_tilted_uniform_law(b, dtype, tolerance):
    tilt = torch.tensor(b, dtype=dtype)
    expected = quadrature(b)
    for function, value in zip((log_sinhc, tilted_mean, tilted_variance), expected, strict=True):
        assert function(tilt).item() == pytest.approx(value, abs=tolerance, rel=tolerance)


def test_the_mean_and_variance_are_the_derivatives_of_the_log_partition():
    b = torch.tensor(TILTS, dtype=torch.float64, requires_grad=True)
    (mean,) = torch.autograd.grad(log_sinhc(b).sum(), b, create_graph=True)
    torch.testing.assert_close(mean, tilted_mean(b), atol=1e-7, rtol=1e-7)
    (variance,) = torch.autograd.grad(mean.sum(), b)
    torch.testing.assert_close(variance, tilted_variance(b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("b", [0.0, 1e-30, 150.0, -1e6])
def test_gradients_stay_finite_in_float32(b):
    tilt = torch.tensor(b, requires_grad=True)
    (log_sinhc(tilt) + tilted_mean(tilt) + tilted_variance(tilt)).backward()
    assert torch.isfinite(tilt.grad).all()
