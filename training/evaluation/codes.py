"""What Q reads back from generated samples: how much of its code a generator heeds, no labels needed."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..code_distribution import CodeDistribution
from ..latent import LatentSpace
from ..networks import Networks

_BATCH = 1000


class CodeReading(NamedTuple):
    """The codes of samples, read back by Q."""

    information: float  # E log q(z1 | G(z)) relative to the prior, nats
    recovery: float  # P(argmax q(·|G(z)) = category)
    recovery_by_category: list[float]


@torch.no_grad()
def code_reading(
    networks: Networks, q: CodeDistribution, latent_space: LatentSpace, count: int, random: torch.Generator
) -> CodeReading:
    """Generates samples and reads their codes back.

        information = E_{z ~ ζ} log dq(·|G(z))/dζ1 (z1)  ≤  I(z1; G(z))

    is the lower bound of Barber and Agakov (2003) on the mutual information (18) between code
    and sample, whatever Q is: log K, plus what the styles add, for a code that is read without
    doubt; 0 for a Q that ignores the sample; negative for a Q that is confidently wrong.
    Recovery asks for the category alone, and only for its rank: a guess scores 1/K.

    Args:
        networks: in evaluation mode, see inference_copy.
        q: the parametrisation of Q.
        latent_space: of the networks.
        count: samples, spread evenly over the categories; styles and noise come from the prior.
        random: on the networks' device.

    Raises:
        ValueError: fewer samples than categories.
    """
    categories = latent_space.categories
    if count < categories:
        raise ValueError(f"{count} samples leave some of {categories} categories out: ask for {categories} or more")
    latents = latent_space.draw(count, random)
    category = torch.arange(count, device=latents.device) % categories
    latents[:, :categories] = F.one_hot(category, categories)
    scores = torch.cat(
        [networks.code_head(networks.trunk(networks.sampling_generator(z))) for z in torch.split(latents, _BATCH)]
    )
    recovered = (scores[:, :categories].argmax(dim=1) == category).double()
    return CodeReading(
        information=float(q.log_density(latents[:, : latent_space.informative], scores).double().mean()),
        recovery=float(recovered.mean()),
        recovery_by_category=[float(recovered[category == k].mean()) for k in range(categories)],
    )
