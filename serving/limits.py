"""How much a request may ask for, so that messages and memory stay bounded."""

MESSAGE_BYTES = 4 * 2**20
"""What stock gRPC clients accept in one message, and what this server accepts in one request."""
BATCH_SAMPLES = 64
"""Samples in one run of a model, and at most in one streamed message."""
CODES = 16384
"""In one request, where as many fit."""

# For a reply's fields that occur once, and a request's: names, hashes, versions, the tags and lengths of arrays.
_FIXED_BYTES = 4096
_FLOAT_BYTES = 4


def explicit_noise_rows(noise_dimensions: int) -> int | None:
    """The rows of explicit noise that fit in one request; None where they have no width, and any number fits."""
    return fitting(_FLOAT_BYTES * noise_dimensions) if noise_dimensions else None


def fitting(sample_bytes: int) -> int:
    """How many samples of so many bytes fit in one message, beside what occurs once."""
    return (MESSAGE_BYTES - _FIXED_BYTES) // sample_bytes
