"""How much a request may ask for, so that messages and memory stay bounded."""

import math

from infosink.v1.sampling_service_pb2 import Limits

from .models.model_file import Description
from .sampling import png

MESSAGE_BYTES = 4 * 2**20
"""What stock gRPC clients accept in one message, and what this server accepts in one request."""
BATCH_SAMPLES = 64
"""Samples in one run of a model, and at most in one streamed message."""
CODES = 16384
"""In one request, where as many fit."""

# For a reply's fields that occur once, and a request's: names, hashes, versions, the tags and lengths of arrays.
_FIXED_BYTES = 4096
_FLOAT_BYTES = 4
# The largest index's varint, and the tag and the length of a bytes, string or message field.
_INDEX_BYTES = 5
_ELEMENT_OVERHEAD_BYTES = 6


def message_limits(description: Description, stream_samples: int) -> Limits:
    """The limits of one model.

    Args:
        description: The model.
        stream_samples: Samples in one StreamSamples call, as the operator set it.
    """
    latents = description.latent_space
    longest_label = max(len(category.label.encode()) for category in latents.categories)
    category = _INDEX_BYTES + longest_label + _ELEMENT_OVERHEAD_BYTES
    code = category + _FLOAT_BYTES * len(latents.styles)
    requested_code = code + 2 * _ELEMENT_OVERHEAD_BYTES
    posterior = category + _FLOAT_BYTES * (len(latents.categories) + 2 * len(latents.styles))
    elements = math.prod(description.sample_shape)
    limits = Limits(
        unary_float32_samples=fitting(code + _FLOAT_BYTES * elements),
        stream_samples=stream_samples,
        codes=min(CODES, fitting(requested_code)),
        inferred_samples=min(fitting(_FLOAT_BYTES * elements), fitting(posterior)),
    )
    if description.sample_space.HasField("image"):
        channels, height, width = description.sample_shape
        limits.unary_uint8_samples = fitting(code + elements)
        limits.unary_png_samples = fitting(
            code + _ELEMENT_OVERHEAD_BYTES + png.largest_encoding(height, width, channels)
        )
    return limits


def explicit_noise_rows(noise_dimensions: int) -> int | None:
    """The rows of explicit noise that fit in one request; None where they have no width, and any number fits."""
    return fitting(_FLOAT_BYTES * noise_dimensions) if noise_dimensions else None


def fitting(sample_bytes: int) -> int:
    """How many samples of so many bytes fit in one message, beside what occurs once."""
    return (MESSAGE_BYTES - _FIXED_BYTES) // sample_bytes
