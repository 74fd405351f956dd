"""Mixtures of Gaussians in the plane, drawn from their formula."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from .dataset import DatasetError, ImageFrame, Split, require_positive


@dataclass(frozen=True)
class Gaussians:
    """The equal mixture ν = 1/K Σ_k N(c_k, σ² I) in the plane; the label of a point is its component k.

    Attributes:
        name: The data set's name.
        centres: The component means c_k, float32 of shape (K, 2).
        sigma: The standard deviation σ of each component along each axis, positive.
    """

    name: str
    centres: Tensor
    sigma: float

    frame: ClassVar[ImageFrame | None] = None
    _fixed_samples: ClassVar[dict[Split, int]] = {"training": 50_000, "validation": 10_000, "test": 10_000}
    _fixed_seeds: ClassVar[dict[Split, int]] = {"training": 0, "validation": 2, "test": 1}

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise DatasetError(f"The standard deviation {self.sigma} is not a positive number. Set sigma above 0.")

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, (2,)."""
        return (2,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The component indices in decimal, "0" to "K - 1"."""
        return tuple(str(component) for component in range(len(self.centres)))

    def to(self, device: torch.device) -> Self:
        """Returns the same mixture on `device`, where `draw` and `batches` then give their points."""
        return replace(self, centres=self.centres.to(device))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws i.i.d. points y ~ ν: float32, shape (count, 2); see `Dataset.draw`."""
        return self.draw_labelled(count, generator)[0]

    def draw_labelled(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws i.i.d. points with the components they came from.

        Args:
            count: How many.
            generator: The source of randomness, on the mixture's device.

        Returns:
            The points, float32 of shape (count, 2), and their components, int64 of shape (count,).
        """
        device = self.centres.device
        components = torch.randint(len(self.centres), (count,), generator=generator, device=device)
        noise = torch.randn(count, 2, generator=generator, device=device)
        return self.centres[components] + self.sigma * noise, components

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Goes through a fixed sample of 50,000 training or 10,000 other points, the same on every device.

        See `Dataset.batches`.
        """
        require_positive(size)
        device = self.centres.device
        # Drawn on the CPU: another device's generator would give other points for the same seed.
        generator = torch.Generator().manual_seed(self._fixed_seeds[split])
        fixed = self.to(torch.device("cpu")).draw_labelled(self._fixed_samples[split], generator)
        points, components = (part.to(device) for part in fixed)
        return (
            (points[start : start + size], components[start : start + size]) for start in range(0, len(points), size)
        )

    def describe(self) -> dict[str, object]:
        """Returns JSON-able facts: name, source, sizes, centres and standard deviation."""
        return {
            "name": self.name,
            "source": "formula",
            "training_samples": self._fixed_samples["training"],
            "test_samples": self._fixed_samples["test"],
            "sample_shape": [2],
            "centres": self.centres.tolist(),
            "sigma": self.sigma,
        }


def grid_gaussians(sigma: float = 0.05) -> Gaussians:
    """The 25 Gaussians on the grid {-4, -2, 0, 2, 4}².

    Component 5 i + j has its centre at (-4 + 2 i, -4 + 2 j): up each column of the grid, the columns left to right.

    Args:
        sigma: The standard deviation of each along each axis.

    Raises:
        DatasetError: If `sigma` is not positive.
    """
    axis = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
    return Gaussians("gaussians", torch.cartesian_prod(axis, axis), sigma)


def circle_gaussians(sigma: float = 0.02) -> Gaussians:
    """The eight Gaussians on the circle of radius 2.

    Component k has its centre at the angle 2π k / 8: anticlockwise from (2, 0).

    Args:
        sigma: The standard deviation of each along each axis.

    Raises:
        DatasetError: If `sigma` is not positive.
    """
    angle = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8)
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return Gaussians("eight-gaussians", centres.float(), sigma)
