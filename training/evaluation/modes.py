"""How well a generator covers a mixture of Gaussians, and whether its categories are the components.

The protocol of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018), which takes 2,500
samples: a sample is of high quality within 3 standard deviations of the nearest centre, and a
mode counts as found when it has such a sample. In the plane a perfect sampler's share of
high-quality samples is 1 − exp(−9/2) = 0.9889.
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
    reverse_kl: float  # KL(generated ‖ data) over modes, nats, in [0, log modes]


def mode_coverage(samples: Tensor, categories: Tensor, centres: Tensor, sigma: float) -> ModeCoverage:
    """Measures samples against the equal mixture they should come from.

    Every sample, of high quality or not, belongs to the mode of its nearest centre. With p_m the
    share of samples in mode m, and M modes, which real data fills equally, the reverse
    Kullback-Leibler divergence is

        KL(p ‖ uniform) = Σ_m p_m log(M p_m)

    0 where the modes are in balance, log M where all samples share one. Of n samples from a
    perfect sampler it is (M − 1) / 2n on average: 0.0048 for 2,500 samples and 25 modes.

    Code-mode purity asks whether a category is one mode, not whether the modes are covered: a generator
    that has collapsed to one mode scores 1. Nor is it 0 where categories mean nothing, because
    each has some most frequent mode: of 2,500 samples, 25 categories and 25 modes that is about 0.08.

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
    share = table.sum(dim=0).double() / len(samples)
    return ModeCoverage(
        modes=int(torch.bincount(mode[good], minlength=len(centres)).count_nonzero()),
        high_quality=int(good.sum()) / len(samples),
        code_mode_purity=int(table.max(dim=1).values.sum()) / len(samples),
        reverse_kl=float(torch.xlogy(share, len(centres) * share).sum()),
    )
