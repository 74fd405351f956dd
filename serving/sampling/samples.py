"""Samples from a checked plan, a batch at a time."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..limits import BATCH_SAMPLES
from ..models.draws import Draws, draw
from ..models.served_model import ServedModel
from ..runtime.batching import all_in_order, in_order
from ..runtime.session import Array


@dataclass(frozen=True)
class Codes:
    """The informative codes that samples take in turn; M of them, at least one."""

    candidates: npt.NDArray[np.int64]
    """The categories that may be drawn, all codes' one after another."""
    candidate_start: npt.NDArray[np.int64]
    """[M]: where each code's candidates start."""
    candidate_count: npt.NDArray[np.int64]
    """[M]: how many there are, at least one."""
    style: npt.NDArray[np.float32]
    """[M, S]."""
    has_style: npt.NDArray[np.bool_]
    """[M]: whether a code states its style; it is drawn where not."""


@dataclass(frozen=True)
class SamplingPlan:
    """Which samples to draw: a checked Draw."""

    count: int
    first_index: int
    seed: int
    codes: Codes
    noise: npt.NDArray[np.float32] | None
    """[count, N] or [1, N]; None where it is drawn."""
    shared_index: int | None
    """The index of the sample whose noise all take; None where each has its own."""


@dataclass(frozen=True)
class Samples:
    """A range of samples with the codes they were made from."""

    first_index: int
    category: npt.NDArray[np.int64]
    style: npt.NDArray[np.float32]
    values: Array
    """What the model gave: "sample" or "pixels"."""


@dataclass(frozen=True)
class _Latents:
    """What a range of samples is made from."""

    first_index: int
    category: npt.NDArray[np.int64]
    style: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]


async def sample(model: ServedModel, plan: SamplingPlan, output: str) -> list[Samples]:
    """Draws the plan's samples in order, 64 at a time; two batches are under way at once."""
    started = _start(model, plan, output, BATCH_SAMPLES)
    return [_samples(latents, arrays) for latents, arrays in await all_in_order(started)]


async def sample_stream(
    model: ServedModel, plan: SamplingPlan, output: str, batch: int
) -> AsyncGenerator[Samples, None]:
    """As `sample`, but gives each batch as soon as it is drawn, of `batch` samples, at most 64."""
    async with aclosing(in_order(_start(model, plan, output, batch))) as parts:
        async for latents, arrays in parts:
            yield _samples(latents, arrays)


def _start(
    model: ServedModel, plan: SamplingPlan, output: str, batch: int
) -> "Iterator[tuple[_Latents, asyncio.Future[list[Array]]]]":
    for latents in _latents(model, plan, batch):
        yield latents, model.generate(latents.category, latents.style, latents.noise, output)


def _samples(latents: _Latents, arrays: Sequence[Array]) -> Samples:
    return Samples(latents.first_index, latents.category, latents.style, arrays[0])


def _latents(model: ServedModel, plan: SamplingPlan, batch: int) -> Iterator[_Latents]:
    shared_noise = None
    if plan.shared_index is not None:
        shared_noise = _draw(model, plan.seed, plan.shared_index, 1).noise
    for offset in range(0, plan.count, batch):
        count = min(batch, plan.count - offset)
        first_index = plan.first_index + offset
        draws = _draw(model, plan.seed, first_index, count)
        category, style = _resolve(plan.codes, first_index, draws)
        if shared_noise is not None:
            noise = shared_noise.repeat(count, axis=0)
        elif plan.noise is not None:
            rows = plan.noise[offset : offset + count] if len(plan.noise) == plan.count else plan.noise
            noise = rows if len(rows) == count else rows.repeat(count, axis=0)
        else:
            noise = draws.noise
        yield _Latents(first_index, category, style, noise)


def _draw(model: ServedModel, seed: int, first_index: int, count: int) -> Draws:
    return draw(seed, first_index, count, styles=model.style_count, noise_dimensions=model.noise_dimensions)


def _resolve(codes: Codes, first_index: int, draws: Draws) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The category, int64 [batch], and the style, float32 [batch, S], of each sample."""
    code_count = len(codes.has_style)
    # The remainder is taken before numpy's 64 bits overflow.
    row = (first_index % code_count + np.arange(len(draws.category_uniform))) % code_count
    choice = np.floor(draws.category_uniform * codes.candidate_count[row]).astype(np.int64)
    category = codes.candidates[codes.candidate_start[row] + choice]
    style = np.where(codes.has_style[row, None], codes.style[row], draws.style)
    return category, style
