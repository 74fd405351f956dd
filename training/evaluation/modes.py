"""How well a generator covers a mixture of Gaussians, and whether its categories are the components.

The protocol of PacGAN (Lin et al. 2018): a sample is of high quality within 3 standard
deviations of the nearest centre, and a mode counts as found when it has such a sample. In the
plane a perfect sampler's share of high-quality samples is 1 − exp(−9/2) = 0.9889.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HIGH_QUALITY_RADIUS = 3.0


class ModeCoverage(NamedTuple):
    """What was found among the samples."""

    modes: int  # components with at least one high-quality sample
    high_quality: float  # the share of samples within 3σ of a centre
    code_mode_purity: float  # the share of samples whose nearest centre is their category's most frequent


def mode_coverage(samples: Tensor, categories: Tensor, centres: Tensor, sigma: float) -> ModeCoverage:
    """Measures samples against the mixture they should come from.

    Args:
        samples: (count, dimensions).
        categories: the category each was generated with, (count,) int64.
        centres: of the components, (modes, dimensions).
        sigma: the components' standard deviation.
    """
    distance, mode = torch.cdist(samples, centres).min(dim=1)
    good = distance <= HIGH_QUALITY_RADIUS * sigma
    table = torch.zeros(int(categories.max()) + 1, len(centres), dtype=torch.int64, device=samples.device)
    table.index_put_((categories, mode), torch.ones_like(mode), accumulate=True)
    return ModeCoverage(
        modes=int(torch.bincount(mode[good], minlength=len(centres)).count_nonzero()),
        high_quality=int(good.sum()) / len(samples),
        code_mode_purity=int(table.max(dim=1).values.sum()) / len(samples),
    )
