"""Which samples to draw: the request's side of the wire."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from infosink.v1 import model_pb2
from infosink.v1 import sampling_service_pb2 as v1
from numpy.typing import NDArray

from .wire import to_tensor

_LARGEST_UINT32 = 2**32 - 1
_LARGEST_UINT64 = 2**64 - 1

LARGEST_NOISE = 10.0
"""The largest magnitude of a noise value in a request, beyond what the prior's draws reach."""


@dataclass(frozen=True)
class Code:
    """The informative code z1 = (category, style) of a sample; what is left out is drawn from the prior.

    Attributes:
        category: An index into the model's categories; excludes `label`.
        label: A label; where several categories bear it, one is drawn uniformly for each sample.
        style: One value in [-1, 1] for each style, or none.

    Raises:
        ValueError: If both category and label are given, or the category is out of range.
        TypeError: If the label is no text.
    """

    category: int | None = None
    label: str | None = None
    style: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.category is not None and self.label is not None:
            raise ValueError(f"give a category ({self.category}) or a label ({self.label!r}), not both")
        if self.label is not None and not isinstance(self.label, str):
            raise TypeError(f"the label is {self.label!r}; give it as text, such as label={str(self.label)!r}")
        if self.category is not None:
            _check_range("category", self.category, 0, _LARGEST_UINT32)

    def to_wire(self) -> v1.Code:
        """The code as a message."""
        return v1.Code(category=self.category, label=self.label, style=[float(value) for value in self.style])


@dataclass(frozen=True)
class Draw:
    """Samples first_index .. first_index + count - 1 of a seed.

    Sample i takes codes[i mod their number] and depends on nothing else in the draw, so that a draw may be taken
    in parts.

    Attributes:
        count: How many, at least 1.
        codes: The codes in turn; empty to draw all of them from the prior.
        noise: float32 [count, N], or [1, N] for all samples alike, in [-10, 10]; None to draw it.
        shared_noise_index: The sample whose noise all take; excludes `noise`.
        seed: 0 to 2**64 - 1; None lets the server choose.
        first_index: The index of the first sample.

    Raises:
        ValueError: If a number is out of range, or noise is given twice.
    """

    count: int
    codes: tuple[Code, ...] = ()
    noise: NDArray[np.float32] | None = None
    shared_noise_index: int | None = None
    seed: int | None = None
    first_index: int = 0

    def __post_init__(self) -> None:
        _check_range("count", self.count, 1, _LARGEST_UINT64)
        _check_range("first_index", self.first_index, 0, _LARGEST_UINT64 + 1 - self.count)
        for name, value in (("seed", self.seed), ("shared_noise_index", self.shared_noise_index)):
            if value is not None:
                _check_range(name, value, 0, _LARGEST_UINT64)
        if self.noise is not None and self.shared_noise_index is not None:
            raise ValueError("give the noise itself or the index of a sample to take it from, not both")
        if self.noise is not None and (self.noise.ndim != 2 or len(self.noise) not in (1, self.count)):
            raise ValueError(
                f"noise has shape {list(self.noise.shape)}; give [{self.count}, N], or [1, N] for all samples alike"
            )

    def part(self, start: int, count: int) -> "Draw":
        """The draw of `count` of these samples, from the `start`-th on, with no more codes than samples."""
        first_index = self.first_index + start
        codes = self.codes
        if len(codes) > count:
            by_remainder = {i % count: codes[i % len(codes)] for i in range(first_index, first_index + count)}
            codes = tuple(by_remainder[remainder] for remainder in range(count))
        noise = self.noise
        if noise is not None and len(noise) > 1:
            noise = noise[start : start + count]
        return replace(self, count=count, codes=codes, noise=noise, first_index=first_index)

    def to_wire(self) -> v1.Draw:
        """The draw as a message."""
        noise = None
        if self.noise is not None:
            noise = v1.Noise(values=to_tensor(self.noise))
        elif self.shared_noise_index is not None:
            noise = v1.Noise(shared_index=self.shared_noise_index)
        codes = [code.to_wire() for code in self.codes]
        return v1.Draw(count=self.count, codes=codes, noise=noise, seed=self.seed, first_index=self.first_index)


def distinct_labels(space: model_pb2.LatentSpace) -> list[str]:
    """The labels that some category bears, numbers before words, each in ascending order."""
    return sorted({category.label for category in space.categories} - {""}, key=_rank)


def _rank(label: str) -> tuple[bool, int, str, str]:
    # Digits without leading zeros are ordered as the number is, however long it is.
    digits = label.lstrip("0") if label.isdecimal() else ""
    return not label.isdecimal(), len(digits), digits, label


def _check_range(name: str, value: int, smallest: int, largest: int) -> None:
    if not smallest <= value <= largest:
        raise ValueError(f"{name} is {value}; it must lie between {smallest} and {largest}")
