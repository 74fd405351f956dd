"""The prior's draws: a pure function from (seed, sample index) to category, style and noise.

Counter-based: sample i owns W consecutive 64-bit words of the output of Philox4x64-10 (Salmon, Moraes, Dror, Shaw:
Parallel random numbers: as easy as 1, 2, 3; SC 2011) under the key (seed, 0), the words i W to (i + 1) W - 1, so any
range of samples is drawn at once and alike. In order, a sample's words are

    1               the category, u = uniform(word)
    S               the style, 2 u - 1
    2 ceil(N / 2)   the noise, Box-Muller on word pairs (a, b): r = sqrt(-2 ln(((a >> 11) + 1) 2^-53)), angle 2 pi u(b);
                    r cos(angle), then r sin(angle); where N is odd the last is dropped

with uniform(word) = (word >> 11) 2^-53 in [0, 1), and W rounded up to whole Philox blocks of four words. All is
computed in float64. The raw words alone come from numpy, whose distributions may change between versions; its Philox
does not.
"""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NOISE_ALGORITHM = "philox4x64-10/box-muller/1"
INDEX_LIMIT = 2**64
"""Sample indices and seeds are below this."""

_BLOCK_WORDS = 4
_WORD_LIMIT = 2**64
_COUNTER_WORDS = 4
_EMPTY_BUFFER = np.zeros(_BLOCK_WORDS, np.uint64)

Words = npt.NDArray[np.uint64]


class _Generator(threading.local):
    """A thread's own: to make one takes longer than to draw a sample."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)


_generator = _Generator()


@dataclass(frozen=True)
class Draws:
    """What the prior gives for a range of samples."""

    category_uniform: npt.NDArray[np.float64]
    """[batch], in [0, 1): chooses among a sample's candidate categories."""
    style: npt.NDArray[np.float32]
    """[batch, S], uniform on [-1, 1]."""
    noise: npt.NDArray[np.float32]
    """[batch, N], standard normal."""


def blocks_per_sample(styles: int, noise_dimensions: int) -> int:
    """The number of Philox blocks, W / 4, that a sample owns."""
    words = 1 + styles + 2 * -(-noise_dimensions // 2)
    return -(-words // _BLOCK_WORDS)


def draw(seed: int, first_index: int, count: int, *, styles: int, noise_dimensions: int) -> Draws:
    """Draws the samples first_index to first_index + count - 1.

    Args:
        seed: The key's low word, in [0, 2^64).
        first_index: The index of the first sample, in [0, 2^64).
        count: How many samples, at least 1.
        styles: S, the number of style codes.
        noise_dimensions: N, the dimension of the noise.
    """
    words = _words(seed, first_index, count, blocks_per_sample(styles, noise_dimensions))
    pairs = words[:, 1 + styles : 1 + styles + 2 * -(-noise_dimensions // 2)]
    return Draws(
        category_uniform=_uniform(words[:, 0]),
        style=(2 * _uniform(words[:, 1 : 1 + styles]) - 1).astype(np.float32),
        noise=_normal(pairs)[:, :noise_dimensions].astype(np.float32),
    )


def _words(seed: int, first_index: int, count: int, blocks: int) -> Words:
    """The raw words, uint64 [count, W]."""
    # Philox in numpy increments its counter before each block, the first included.
    counter = first_index * blocks - 1
    limbs = [(counter >> (64 * limb)) % _WORD_LIMIT for limb in range(_COUNTER_WORDS)]
    philox = _generator.philox
    philox.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array(limbs, np.uint64), "key": np.array([seed, 0], np.uint64)},
        "buffer": _EMPTY_BUFFER,
        "buffer_pos": _BLOCK_WORDS,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return philox.random_raw(count * blocks * _BLOCK_WORDS).reshape(count, -1)


def _uniform(words: Words) -> npt.NDArray[np.float64]:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(pairs: Words) -> npt.NDArray[np.float64]:
    """Box-Muller: [batch, 2 P] words to [batch, 2 P] standard normals."""
    # Contiguous operands keep every element on one code path of the vectorised log, cos and sin, whatever the batch.
    a = np.ascontiguousarray(pairs[:, 0::2])
    b = np.ascontiguousarray(pairs[:, 1::2])
    # 1 - u would be exact too, but (a >> 11) + 1 says plainly that the logarithm never sees zero.
    radius = np.sqrt(-2 * np.log(((a >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53))
    angle = 2 * np.pi * _uniform(b)
    normals = np.empty(pairs.shape, np.float64)
    normals[:, 0::2] = radius * np.cos(angle)
    normals[:, 1::2] = radius * np.sin(angle)
    return normals
