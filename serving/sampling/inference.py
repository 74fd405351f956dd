"""Codes from checked samples, a batch at a time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..limits import BATCH_SAMPLES
from ..runtime.batching import BatchedSession, all_in_order

_OUTPUTS = ("category_probability", "style_mean", "style_std")


@dataclass(frozen=True)
class Posterior:
    """What the encoder says of a range of samples."""

    category_probability: npt.NDArray[np.float32]
    """[batch, K]."""
    style_mean: npt.NDArray[np.float32]
    """[batch, S]."""
    style_std: npt.NDArray[np.float32]
    """[batch, S]."""


async def infer(encoder: BatchedSession, samples: npt.NDArray[np.float32]) -> list[Posterior]:
    """Q(z1 | x) of the samples in order, 64 at a time; two batches are under way at once.

    Args:
        encoder: A model's encoder.
        samples: [count, *sample shape], count at least 1.
    """
    started = (
        (offset, encoder.start({"sample": samples[offset : offset + BATCH_SAMPLES]}, _OUTPUTS))
        for offset in range(0, len(samples), BATCH_SAMPLES)
    )
    return [Posterior(*arrays) for _, arrays in await all_in_order(started)]
