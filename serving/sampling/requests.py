"""Requests to plans: every value checked before any work is done."""

import math
import secrets
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_PNG,
    ENCODING_UINT8,
    ENCODING_UNSPECIFIED,
    Code,
    Draw,
    Encoding,
    InferCodesRequest,
    Noise,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, DataType, Tensor

from ..errors import InvalidRequestError, UnavailableError, listed, quoted
from ..limits import explicit_noise_rows
from ..models.draws import INDEX_LIMIT
from ..models.frames import Frames
from ..models.served_model import ServedModel
from . import png, tensors
from .faults import Faults
from .samples import Codes, SamplingPlan

# float32 arithmetic may leave a value this far outside its range, as a share of the range.
_RANGE_TOLERANCE = 1e-3
LARGEST_NOISE = 10
# Far beyond any data, and far from where float32 arithmetic overflows.
_LARGEST_COORDINATE = 1e6


def check_encoding(encoding: Encoding, model: ServedModel) -> Encoding:
    """The encoding to reply in, the model's own where unspecified.

    Raises:
        InvalidRequestError: If it is unknown, or is for images and the samples are points.
    """
    images = model.frames is not None
    if encoding == ENCODING_UNSPECIFIED:
        return ENCODING_UINT8 if images else ENCODING_FLOAT32
    if encoding not in (ENCODING_UINT8, ENCODING_FLOAT32, ENCODING_PNG):
        raise InvalidRequestError(
            f"encoding {int(encoding)} is unknown: use UINT8, FLOAT32 or PNG",
            reason="VALUE_UNKNOWN",
            field="encoding",
            metadata={"value": int(encoding)},
        )
    if encoding != ENCODING_FLOAT32 and not images:
        name = "UINT8" if encoding == ENCODING_UINT8 else "PNG"
        raise InvalidRequestError(
            f"encoding {name} is for images, but {model.name} makes points: use FLOAT32",
            reason="ENCODING_UNSUITABLE",
            field="encoding",
            metadata={"value": name, "limit": "FLOAT32"},
        )
    return encoding


def unary_limit(encoding: Encoding, model: ServedModel) -> int:
    """The samples that one Sample reply may hold."""
    if encoding == ENCODING_PNG:
        return model.limits.unary_png_samples
    return model.limits.unary_uint8_samples if encoding == ENCODING_UINT8 else model.limits.unary_float32_samples


def check_draw(draw: Draw | None, model: ServedModel, limit: int, remedy: str) -> SamplingPlan:
    """The plan that a Draw asks for.

    Args:
        draw: The message; None where the request has none.
        model: The model to draw from.
        limit: The samples allowed in this call.
        remedy: What to do about more.

    Raises:
        InvalidRequestError: If values are outside their limits; it names all of them, up to a number.
        UnavailableError: If no category bears a label asked for.
    """
    draw = draw or Draw()
    faults = Faults()
    with faults:
        _check_last_index(draw)
    with faults:
        codes = _check_codes(draw.codes, model, faults)
    with faults:
        # The shape of the noise follows the count.
        _check_count(draw.count, limit, remedy)
        noise = _check_noise(draw.noise, draw.count, model)
    faults.refuse()
    shared = draw.noise.WhichOneof("source") == "shared_index"
    return SamplingPlan(
        count=draw.count,
        first_index=draw.first_index,
        seed=draw.seed if draw.HasField("seed") else secrets.randbits(64),
        codes=codes,
        noise=noise,
        shared_index=draw.noise.shared_index if shared else None,
    )


def _check_count(count: int, limit: int, remedy: str) -> None:
    if count == 0:
        raise InvalidRequestError(
            "draw.count is 0, but must be at least 1: say how many samples to draw",
            reason="VALUE_MISSING",
            field="draw.count",
        )
    if count > limit:
        raise InvalidRequestError(
            f"draw.count is {count}, over the limit of {limit} in this call: {remedy}",
            reason="LIMIT_EXCEEDED",
            field="draw.count",
            metadata={"value": count, "limit": limit},
        )


def _check_last_index(draw: Draw) -> None:
    end = draw.first_index + draw.count
    if end > INDEX_LIMIT:
        raise InvalidRequestError(
            f"draw.first_index + draw.count is {end}, over the limit of 2^64: start at a lower index",
            reason="VALUE_OUT_OF_RANGE",
            field="draw.first_index",
            metadata={"value": end, "limit": INDEX_LIMIT},
        )


def _check_codes(codes: Sequence[Code], model: ServedModel, faults: Faults) -> Codes:
    if len(codes) > model.limits.codes:
        raise InvalidRequestError(
            f"draw.codes has {len(codes)} codes, over the limit of {model.limits.codes}: split the request",
            reason="LIMIT_EXCEEDED",
            field="draw.codes",
            metadata={"value": len(codes), "limit": model.limits.codes},
        )
    if not codes:
        return _drawn_codes(len(model.labels), model.style_count)
    candidates = list(range(len(model.labels)))
    label_start: dict[str, int] = {}
    for label, categories in model.categories_by_label.items():
        label_start[label] = len(candidates)
        candidates.extend(categories)
    start = np.zeros(len(codes), np.int64)
    count = np.full(len(codes), len(model.labels), np.int64)
    style = np.zeros((len(codes), model.style_count), np.float32)
    has_style = np.zeros(len(codes), np.bool_)
    for position, code in enumerate(codes):
        selection = code.WhichOneof("selection")
        with faults:
            if selection == "category":
                start[position], count[position] = _check_category(code.category, position, model), 1
            elif selection == "label":
                categories = _check_label(code.label, position, model)
                start[position], count[position] = label_start[code.label], len(categories)
        if code.style:
            with faults:
                style[position] = _check_style(code.style, position, model)
                has_style[position] = True
    return Codes(np.array(candidates, np.int64), start, count, style, has_style)


@lru_cache
def _drawn_codes(categories: int, styles: int) -> Codes:
    """One code that states nothing."""
    return Codes(
        candidates=np.arange(categories),
        candidate_start=np.zeros(1, np.int64),
        candidate_count=np.full(1, categories, np.int64),
        style=np.zeros((1, styles), np.float32),
        has_style=np.zeros(1, np.bool_),
    )


def _check_category(category: int, position: int, model: ServedModel) -> int:
    if category >= len(model.labels):
        raise InvalidRequestError(
            f"draw.codes[{position}].category is {category}, but {model.name} has the categories 0 to "
            f"{len(model.labels) - 1}",
            reason="VALUE_OUT_OF_RANGE",
            field=f"draw.codes[{position}].category",
            metadata={"value": category, "limit": len(model.labels) - 1},
        )
    return category


def _check_label(label: str, position: int, model: ServedModel) -> tuple[int, ...]:
    categories = model.categories_by_label.get(label)
    if categories is None:
        raise UnavailableError(
            f"draw.codes[{position}].label is {quoted(label)}, but no category of {model.name} bears it: "
            f"the labels that exist are {listed(list(model.categories_by_label))}",
            reason="LABEL_UNREACHABLE",
            field=f"draw.codes[{position}].label",
            metadata={"value": quoted(label)},
        )
    return categories


def _check_style(style: Sequence[float], position: int, model: ServedModel) -> Sequence[float]:
    field = f"draw.codes[{position}].style"
    if len(style) != model.style_count:
        raise InvalidRequestError(
            f"{field} has {len(style)} values, but {model.name} has {model.style_count} style codes: "
            f"give {model.style_count} values, or none to have them drawn",
            reason="SHAPE_MISMATCH",
            field=field,
            metadata={"value": len(style), "limit": model.style_count},
        )
    faults = Faults()
    for dimension, value in enumerate(style):
        if not (math.isfinite(value) and -1 <= value <= 1):
            with faults:
                raise InvalidRequestError(
                    f"{field}[{dimension}] is {value:g}, but must be in [-1, 1]",
                    reason="VALUE_OUT_OF_RANGE",
                    field=f"{field}[{dimension}]",
                    metadata={"value": f"{value:g}", "limit": "[-1, 1]"},
                )
    faults.refuse()
    return style


def _check_noise(noise: Noise, count: int, model: ServedModel) -> npt.NDArray[np.float32] | None:
    if noise.WhichOneof("source") != "values":
        return None
    dimensions = model.noise_dimensions
    limit = explicit_noise_rows(dimensions)
    if limit is not None and count > limit and tuple(noise.values.shape) != (1, dimensions):
        raise InvalidRequestError(
            f"draw.noise.values fits in one request for at most {limit} samples of {model.name}, but draw.count is "
            f"{count}: split the request by first_index, or give one row, [1, {dimensions}], for all samples",
            reason="LIMIT_EXCEEDED",
            field="draw.noise.values",
            metadata={"value": count, "limit": limit},
        )
    shapes: dict[DataType, Sequence[tuple[int, ...]]] = {
        DATA_TYPE_FLOAT32: list(dict.fromkeys([(count, dimensions), (1, dimensions)]))
    }
    values = tensors.to_array(noise.values, "draw.noise.values", shapes).astype(np.float32, copy=False)
    return _check_magnitude(values, "draw.noise.values", LARGEST_NOISE)


def _check_magnitude(values: npt.NDArray[np.float32], what: str, limit: float) -> npt.NDArray[np.float32]:
    magnitude = np.abs(values)
    if magnitude.size and magnitude.max() > limit:
        position = np.unravel_index(magnitude.argmax(), values.shape)
        raise InvalidRequestError(
            f"{what}{[int(index) for index in position]} is {values[position]:g}, but must be in "
            f"[{-limit:g}, {limit:g}]: scale the values",
            reason="VALUE_OUT_OF_RANGE",
            field=f"{what}.data",
            metadata={"value": f"{values[position]:g}", "limit": f"[{-limit:g}, {limit:g}]"},
        )
    return values


def check_samples(request: InferCodesRequest, model: ServedModel) -> npt.NDArray[np.float32]:
    """The samples to infer codes from, as the encoder reads them: float32 [batch, *sample shape].

    Raises:
        InvalidRequestError: If there are none or too many, or one is malformed, of a wrong size or out of range.
    """
    kind = request.WhichOneof("samples")
    if kind == "png":
        if model.frames is None:
            raise InvalidRequestError(
                f"{model.name} reads points, not images: send a FLOAT32 tensor",
                reason="ENCODING_UNSUITABLE",
                field="png",
            )
        _check_sample_count(len(request.png.images), "png.images", model)
        images = png.decode(request.png.images, model.frames)
        return np.concatenate([model.frames.from_pixels(image[None]) for image in images])
    if kind == "tensor":
        _check_sample_count(request.tensor.shape[0] if request.tensor.shape else 0, "tensor.shape", model)
        if model.frames is None:
            return _check_points(request.tensor, model)
        return _check_images(request.tensor, model.frames)
    raise InvalidRequestError(
        "the request holds no samples: send a tensor or PNG images", reason="VALUE_MISSING", field="samples"
    )


def _check_sample_count(count: int, field: str, model: ServedModel) -> None:
    if count == 0:
        raise InvalidRequestError(
            "the request holds 0 samples, but must hold at least 1: send a tensor or PNG images",
            reason="VALUE_MISSING",
            field=field,
        )
    if count > model.limits.inferred_samples:
        raise InvalidRequestError(
            f"the request holds {count} samples, over the limit of {model.limits.inferred_samples} in one call: "
            "split the request",
            reason="LIMIT_EXCEEDED",
            field=field,
            metadata={"value": count, "limit": model.limits.inferred_samples},
        )


def _check_points(tensor: Tensor, model: ServedModel) -> npt.NDArray[np.float32]:
    shapes: dict[DataType, Sequence[tuple[int, ...]]] = {
        DATA_TYPE_FLOAT32: [(tensor.shape[0], *model.description.sample_shape)]
    }
    points = tensors.to_array(tensor, "tensor", shapes).astype(np.float32, copy=False)
    return _check_magnitude(points, "tensor", _LARGEST_COORDINATE)


def _check_images(tensor: Tensor, frames: Frames) -> npt.NDArray[np.float32]:
    count, channels = tensor.shape[0], frames.space.channels
    shapes: dict[DataType, Sequence[tuple[int, ...]]] = {
        DATA_TYPE_UINT8: [(count, *size, channels) for size in frames.sizes],
        DATA_TYPE_FLOAT32: [(count, channels, *size) for size in frames.sizes],
    }
    array = tensors.to_array(tensor, "tensor", shapes)
    if tensor.data_type == DATA_TYPE_UINT8:
        return frames.from_pixels(array.astype(np.uint8, copy=False))
    minimum, maximum = frames.space.minimum, frames.space.maximum
    tolerance = _RANGE_TOLERANCE * (maximum - minimum)
    if array.min() < minimum - tolerance or array.max() > maximum + tolerance:
        raise InvalidRequestError(
            f"tensor has values from {array.min():g} to {array.max():g}, but FLOAT32 images must lie in "
            f"[{minimum:g}, {maximum:g}]: scale them, or send UINT8",
            reason="VALUE_OUT_OF_RANGE",
            field="tensor.data",
            metadata={"value": f"[{array.min():g}, {array.max():g}]", "limit": f"[{minimum:g}, {maximum:g}]"},
        )
    return frames.from_values(array.astype(np.float32, copy=False))
