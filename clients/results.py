"""What a server's replies hold, as numpy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples, their codes, and all that is needed to draw them again.

    Attributes:
        samples: uint8 [n, height, width, channels] in the data set's native frame, or float32 [n, dimensions].
        categories: int64 [n], indices into the model's categories.
        labels: str [n], the categories' labels.
        style: float32 [n, S], in [-1, 1].
        seed: The seed in use, chosen by the server where none was given.
        first_index: The index of the first sample; sample j has index first_index + j.
        shared_noise_index: The index of the sample whose noise all took; None where each has its own.
        noise_given: Whether the noise was given with the request, and must be given again.
        checkpoint_sha256: The checkpoint's SHA-256, in lower-case hexadecimal.
        noise_algorithm: The name of the algorithm that turns (seed, index) into codes and noise.
        model: The model's name.
        execution_provider: The onnxruntime execution provider that computed them.
        runtime_version: The onnxruntime version that computed them.
    """

    samples: NDArray[Any]
    categories: NDArray[np.int64]
    labels: NDArray[np.str_]
    style: NDArray[np.float32]
    seed: int
    first_index: int
    shared_noise_index: int | None
    noise_given: bool
    checkpoint_sha256: str
    noise_algorithm: str
    model: str
    execution_provider: str
    runtime_version: str

    def __len__(self) -> int:
        return len(self.samples)

    def single(self, place: int) -> "Samples":
        """The sample at `place` alone, under its own index."""
        arrays: dict[str, Any] = {
            name: getattr(self, name)[place : place + 1] for name in ("samples", "categories", "labels", "style")
        }
        return replace(self, first_index=self.first_index + place, **arrays)

    def without_samples(self) -> "Samples":
        """Codes and origin alone; `samples` is [n, 0]."""
        # Not a view, which would keep the samples in memory.
        return replace(self, samples=np.empty((len(self), 0), self.samples.dtype))


@dataclass(frozen=True, eq=False)
class InferredCodes:
    """The posterior of category and style, given samples.

    Attributes:
        categories: int64 [n], the most probable category of each sample.
        labels: str [n], that category's label.
        category_probability: float32 [n, K].
        style_mean: float32 [n, S], in [-1, 1].
        style_std: float32 [n, S], the posterior's standard deviation.
        model: The model's name.
        checkpoint_sha256: The checkpoint's SHA-256, in lower-case hexadecimal.
    """

    categories: NDArray[np.int64]
    labels: NDArray[np.str_]
    category_probability: NDArray[np.float32]
    style_mean: NDArray[np.float32]
    style_std: NDArray[np.float32]
    model: str
    checkpoint_sha256: str

    def __len__(self) -> int:
        return len(self.categories)


_Batch = TypeVar("_Batch", Samples, InferredCodes)


def join_samples(batches: Sequence[Samples]) -> Samples:
    """Consecutive batches, at least one, as one."""
    return _join(batches, "samples", "categories", "labels", "style")


def join_codes(batches: Sequence[InferredCodes]) -> InferredCodes:
    """Consecutive batches, at least one, as one."""
    return _join(batches, "categories", "labels", "category_probability", "style_mean", "style_std")


def _join(batches: Sequence[_Batch], *names: str) -> _Batch:
    if len(batches) == 1:
        return batches[0]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    return replace(batches[0], **arrays)
