"""Independent streams of random numbers from one seed."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that no two streams share their numbers."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes seeds below 2**63


def stream(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on a device, seeded for a purpose."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))
