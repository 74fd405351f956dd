"""How many samples and codes of a model fit in one message."""

import math

from infosink.v1.sampling_service_pb2 import Limits

from ..limits import CODES, fitting
from .frames import largest_encoding
from .model_file import Description

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
        limits.unary_png_samples = fitting(code + _ELEMENT_OVERHEAD_BYTES + largest_encoding(height, width, channels))
    return limits
