"""The latent space z = (z1, z2) and its prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LatentSpace:
    """The product latent space Z = Z1 × Z2 of Section 3.2 of the paper.

    z1 is informative: a one-hot category, uniform over `categories` values, followed by
    `styles` continuous codes, uniform on [-1, 1]. z2 is noise, standard normal in `noise`
    dimensions. A batch of latents is one tensor (batch, categories + styles + noise).
    """

    categories: int
    styles: int
    noise: int

    @property
    def informative(self) -> int:
        """The dimension of z1."""
        return self.categories + self.styles

    @property
    def dimension(self) -> int:
        """The dimension of z."""
        return self.categories + self.styles + self.noise

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws from the prior ζ = ζ1 ⊗ ζ2, on the generator's device: (count, dimension) float32."""
        device = generator.device
        category = torch.randint(self.categories, (count,), generator=generator, device=device)
        style = torch.rand(count, self.styles, generator=generator, device=device) * 2 - 1
        noise = torch.randn(count, self.noise, generator=generator, device=device)
        return self.assemble(category, style, noise)

    def assemble(self, category: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """The latents of given codes: (count,) int64, (count, styles), (count, noise) -> (count, dimension)."""
        one_hot = F.one_hot(category, self.categories).to(style.dtype)
        return torch.cat([one_hot, style, noise], dim=1)

    def category_of(self, latents: Tensor) -> Tensor:
        """The category indices of latents: (count, dimension) -> (count,) int64."""
        return latents[:, : self.categories].argmax(dim=1)
