"""Codes from checked samples, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .limits import BATCH_SAMPLES
from .runtime import Session


@dataclass(frozen=True)
class Posterior:
    """What the encoder says of a range of samples."""

    category_probability: npt.NDArray[np.float32]
    """[batch, K]."""
    style_mean: npt.NDArray[np.float32]
    """[batch, S]."""
    style_std: npt.NDArray[np.float32]
    """[batch, S]."""


def infer(encoder: Session, samples: npt.NDArray[np.float32]) -> Iterator[Posterior]:
    """Q(z1 | x) of the samples in order, 64 at a time.

    Args:
        encoder: The session of a model's encoder.
        samples: [count, *sample shape], count at least 1.
    """
    for start in range(0, len(samples), BATCH_SAMPLES):
        batch = samples[start : start + BATCH_SAMPLES]
        yield Posterior(*encoder.run({"sample": batch}, ["category_probability", "style_mean", "style_std"]))
