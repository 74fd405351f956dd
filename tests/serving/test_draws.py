"""The draws against Philox's known answer, an independent implementation, fixed bytes and the prior's moments."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infosink.serving.models.draws import blocks_per_sample, draw

MASK = 2**64 - 1


def philox_block(counter: int, key: int) -> list[int]:
    """Philox4x64-10 as published, in Python's integers: a 256-bit counter to four words, low word first."""
    words = [(counter >> 64 * i) & MASK for i in range(4)]
    k0, k1 = key & MASK, key >> 64
    for _ in range(10):
        low = words[0] * 0xD2E7470EE14C6C93
        high = words[2] * 0xCA5A826395121157
        words = [(high >> 64) ^ words[1] ^ k0, high & MASK, (low >> 64) ^ words[3] ^ k1, low & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return words


def expected_sample(seed: int, index: int, styles: int, noise: int) -> tuple[float, list[float], list[float]]:
    """Category uniform, style and noise of one sample, word by word from the contract."""
    pairs = (noise + 1) // 2
    blocks = (1 + styles + 2 * pairs + 3) // 4
    words = [word for block in range(blocks) for word in philox_block(index * blocks + block, seed)]
    uniforms = [(word >> 11) / 2**53 for word in words]
    normals = []
    for pair in range(pairs):
        a, b = 1 + styles + 2 * pair, 2 + styles + 2 * pair
        radius = math.sqrt(-2 * math.log(((words[a] >> 11) + 1) / 2**53))
        normals += [radius * math.cos(2 * math.pi * uniforms[b]), radius * math.sin(2 * math.pi * uniforms[b])]
    return uniforms[0], [2 * u - 1 for u in uniforms[1 : 1 + styles]], normals[:noise]


def test_independent_implementation_gives_the_known_answer() -> None:
    assert philox_block(0, 0) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]


def test_category_word_is_the_known_answer() -> None:
    assert draw(0, 0, 1, styles=0, noise_dimensions=0).category_uniform[0] == (0x16554D9ECA36314C >> 11) / 2**53


@pytest.mark.parametrize(("styles", "noise"), [(2, 3), (0, 2), (0, 0), (3, 0), (2, 62), (1, 128), (7, 1)])
@pytest.mark.parametrize("first_index", [0, 1, 2**40 + 17, 2**64 - 5])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_draws_are_the_contract(styles: int, noise: int, first_index: int, seed: int) -> None:
    draws = draw(seed, first_index, 5, styles=styles, noise_dimensions=noise)
    for row in range(5):
        uniform, style, normals = expected_sample(seed, first_index + row, styles, noise)
        assert draws.category_uniform[row] == uniform
        np.testing.assert_array_equal(draws.style[row], np.array(style, np.float32))
        # log, cos and sin may differ in the last bit of float64, which float32 shows rarely.
        np.testing.assert_allclose(draws.noise[row], np.array(normals, np.float32), rtol=2e-7, atol=1e-12)


def test_draws_have_fixed_bytes() -> None:
    draws = draw(12345, 1000, 257, styles=2, noise_dimensions=3)
    exact = draws.category_uniform.astype("<f8").tobytes() + draws.style.astype("<f4").tobytes()
    assert hashlib.sha256(exact).hexdigest() == "09f09b6d6f8f3651346142e880f69c9c1d72af6d6ce126ee0d36aec19d6252c2"
    # Rounded to what a last bit of the platform's logarithm and cosine cannot change here.
    noise = np.round(draws.noise.astype(np.float64), 4).astype("<f8") + 0.0
    assert (
        hashlib.sha256(noise.tobytes()).hexdigest()
        == "772175d8a3541fa7b17f3e1b71ba5c3b4a0b439ced4effcc6cd181a6c3c7b8eb"
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, MASK),
    first=st.integers(0, MASK - 200),
    count=st.integers(1, 130),
    styles=st.integers(0, 5),
    noise=st.integers(0, 17),
    data=st.data(),
)
def test_a_sample_has_the_same_bytes_in_any_range(
    seed: int, first: int, count: int, styles: int, noise: int, data: st.DataObject
) -> None:
    whole = draw(seed, first, count, styles=styles, noise_dimensions=noise)
    start = data.draw(st.integers(0, count - 1))
    length = data.draw(st.integers(1, count - start))
    part = draw(seed, first + start, length, styles=styles, noise_dimensions=noise)
    rows = slice(start, start + length)
    assert part.category_uniform.tobytes() == whole.category_uniform[rows].tobytes()
    assert part.style.tobytes() == whole.style[rows].tobytes()
    assert part.noise.tobytes() == whole.noise[rows].tobytes()


@pytest.mark.parametrize(
    ("styles", "noise", "blocks"), [(0, 0, 1), (3, 0, 1), (4, 0, 2), (0, 2, 1), (2, 3, 2), (2, 62, 17)]
)
def test_a_sample_owns_whole_blocks(styles: int, noise: int, blocks: int) -> None:
    assert blocks_per_sample(styles, noise) == blocks


def test_draws_follow_the_prior() -> None:
    n = 100_000
    draws = draw(7, 0, n, styles=2, noise_dimensions=3)
    counts = np.bincount((draws.category_uniform * 10).astype(int), minlength=10)
    assert ((counts - n / 10) ** 2 / (n / 10)).sum() < 30  # chi-squared, 9 degrees of freedom
    assert draws.category_uniform.min() >= 0
    assert draws.category_uniform.max() < 1
    assert np.abs(draws.style.mean(0)).max() < 0.01
    assert np.abs(draws.style.var(0) - 1 / 3).max() < 0.005
    assert np.abs(draws.style).max() <= 1
    noise = draws.noise.astype(np.float64)
    assert np.abs(noise.mean(0)).max() < 0.015
    assert np.abs(noise.var(0) - 1).max() < 0.02
    assert np.abs((noise**4).mean(0) - 3).max() < 0.15
    everything = np.column_stack([draws.category_uniform, draws.style, noise])
    correlations = np.corrcoef(everything.T) - np.eye(6)
    assert np.abs(correlations).max() < 0.015
    lagged = np.corrcoef(everything[:-1].T, everything[1:].T)[:6, 6:]
    assert np.abs(lagged).max() < 0.015


def test_seeds_and_indices_give_different_draws() -> None:
    rows = {draw(seed, i, 1, styles=2, noise_dimensions=3).noise.tobytes() for seed in range(20) for i in range(20)}
    assert len(rows) == 400
