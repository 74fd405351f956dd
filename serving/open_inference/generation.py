"""A request to a generator by the Open Inference Protocol: checked, and what it leaves out drawn.

Samples are numbered: row i of a request is sample first_index + i of its seed, and what no input states of a sample is
drawn as the native service draws it, so that both give the same sample for the same seed, index, codes and noise.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from infosink.oip.open_inference_service_pb2 import InferParameter, ModelInferRequest

from ..errors import InvalidRequestError, UnavailableError, listed, quoted
from ..models.draws import INDEX_LIMIT, draw
from ..models.served_model import ServedModel
from ..runtime.session import Array
from ..sampling.faults import Faults
from ..sampling.requests import LARGEST_NOISE
from .models import InferenceModel, TensorSpec
from .tensors import read_inputs


@dataclass(frozen=True)
class Generation:
    """The latents of `count` samples, as far as they are stated, and how the rest is drawn."""

    model: ServedModel
    count: int
    seed: int
    first_index: int
    candidates: npt.NDArray[np.int64]
    """The categories to draw from, each as likely."""
    category: npt.NDArray[np.int64] | None
    """[count]."""
    style: npt.NDArray[np.float32] | None
    """[count, S]."""
    noise: npt.NDArray[np.float32] | None
    """[count, N]."""

    @property
    def draws(self) -> bool:
        """Whether anything is drawn."""
        return self.category is None or self.style is None or self.noise is None

    def latents(self, rows: slice) -> dict[str, Array]:
        """What the generator reads for these rows."""
        given = {"category": self.category, "style": self.style, "noise": self.noise}
        stated: dict[str, Array] = {name: array[rows] for name, array in given.items() if array is not None}
        if not self.draws:
            return stated
        draws = draw(
            self.seed,
            self.first_index + rows.start,
            rows.stop - rows.start,
            styles=self.model.style_count,
            noise_dimensions=self.model.noise_dimensions,
        )
        choice = np.floor(draws.category_uniform * len(self.candidates)).astype(np.int64)
        drawn: dict[str, Array] = {"category": self.candidates[choice], "style": draws.style, "noise": draws.noise}
        return drawn | stated


def check_generation(request: ModelInferRequest, model: InferenceModel, outputs: Sequence[TensorSpec]) -> Generation:
    """What a request to a generator asks for.

    Args:
        request: The message, with parameters that are known.
        model: The generator.
        outputs: The outputs asked for, on which the rows that fit in the reply depend.

    Raises:
        InvalidRequestError: If values are outside their limits; it names all of them.
        UnavailableError: If no category bears the label asked for.
    """
    served, limit, parameters = model.served, model.batch_limit(outputs), request.parameters
    arrays = read_inputs(request, model.inputs, limit)
    fields = {tensor.name: f"inputs[{position}]" for position, tensor in enumerate(request.inputs)}
    faults = Faults()
    with faults:
        count = _count(parameters, arrays, limit)
        first_index = _first_index(parameters, count)
    with faults:
        # A seed that fits in either integer parameter, so that any client can send it back.
        seed = _integer(parameters, "seed", secrets.randbits(63))
    with faults:
        candidates = _candidates(parameters, served, "category" in arrays)
    category = style = noise = None
    if "category" in arrays:
        with faults:
            category = _check_category(arrays["category"], fields["category"], served)
    if "style" in arrays:
        with faults:
            style = _check_within(arrays["style"], "style", fields["style"], 1)
    if "noise" in arrays:
        with faults:
            noise = _check_within(arrays["noise"], "noise", fields["noise"], LARGEST_NOISE)
    faults.refuse()
    return Generation(served, count, seed, first_index, candidates, category, style, noise)


def _count(parameters: Mapping[str, InferParameter], arrays: Mapping[str, Array], limit: int) -> int:
    rows = {len(array) for array in arrays.values()}
    count = _integer(parameters, "count", max(rows, default=0))
    if rows and rows != {count}:
        raise InvalidRequestError(
            f"count is {count}, but the inputs have {max(rows)} rows: leave count out",
            reason="SHAPE_MISMATCH",
            field='parameters["count"]',
            metadata={"value": count, "limit": max(rows)},
        )
    if count == 0:
        raise InvalidRequestError(
            "the request asks for 0 samples, but must ask for at least 1: give an input, or the parameter count",
            reason="VALUE_MISSING",
            field="inputs",
        )
    if count > limit:
        raise InvalidRequestError(
            f"count is {count}, over the limit of {limit} in this call: split the request by first_index, or ask for "
            "fewer outputs",
            reason="LIMIT_EXCEEDED",
            field='parameters["count"]',
            metadata={"value": count, "limit": limit},
        )
    return count


def _first_index(parameters: Mapping[str, InferParameter], count: int) -> int:
    first_index = _integer(parameters, "first_index", 0)
    end = first_index + count
    if end > INDEX_LIMIT:
        raise InvalidRequestError(
            f"first_index and the number of samples are {end} together, over the limit of 2^64: start at a lower index",
            reason="VALUE_OUT_OF_RANGE",
            field='parameters["first_index"]',
            metadata={"value": end, "limit": INDEX_LIMIT},
        )
    return first_index


def _integer(parameters: Mapping[str, InferParameter], name: str, absent: int) -> int:
    if name not in parameters:
        return absent
    kind = parameters[name].WhichOneof("parameter_choice")
    value: int = getattr(parameters[name], kind) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise InvalidRequestError(
            f"{name} must be a whole number in [0, 2^64), as int64_param or uint64_param",
            reason="VALUE_OUT_OF_RANGE",
            field=f'parameters["{name}"]',
        )
    return value


def _candidates(
    parameters: Mapping[str, InferParameter], model: ServedModel, has_category: bool
) -> npt.NDArray[np.int64]:
    if "label" not in parameters:
        return np.arange(len(model.labels), dtype=np.int64)
    field = 'parameters["label"]'
    if parameters["label"].WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequestError("label must be text, as string_param", reason="DATA_TYPE_MISMATCH", field=field)
    if has_category:
        raise InvalidRequestError(
            "label draws the category, but the input category states it: give one of them",
            reason="VALUE_REPEATED",
            field=field,
        )
    label = parameters["label"].string_param
    categories = model.categories_by_label.get(label)
    if categories is None:
        raise UnavailableError(
            f"label is {quoted(label)}, but no category of {model.name} bears it: the labels that exist are "
            f"{listed(list(model.categories_by_label))}",
            reason="LABEL_UNREACHABLE",
            field=field,
            metadata={"value": quoted(label)},
        )
    return np.array(categories, np.int64)


def _check_category(array: Array, field: str, model: ServedModel) -> npt.NDArray[np.int64]:
    category: npt.NDArray[np.int64] = array.reshape(len(array))
    outside = (category < 0) | (category >= len(model.labels))
    if outside.any():
        position = int(outside.argmax())
        raise InvalidRequestError(
            f"category[{position}] is {category[position]}, but {model.name} has the categories 0 to "
            f"{len(model.labels) - 1}",
            reason="VALUE_OUT_OF_RANGE",
            field=field,
            metadata={"value": int(category[position]), "limit": len(model.labels) - 1},
        )
    return category


def _check_within(values: Array, name: str, field: str, limit: float) -> npt.NDArray[np.float32]:
    # Not a number is in no range.
    outside = ~(np.abs(values) <= limit)
    if outside.any():
        row, column = (int(index) for index in np.unravel_index(outside.argmax(), values.shape))
        raise InvalidRequestError(
            f"{name}[{row}][{column}] is {values[row, column]:g}, but must be in [{-limit:g}, {limit:g}]",
            reason="VALUE_OUT_OF_RANGE",
            field=field,
            metadata={"value": f"{values[row, column]:g}", "limit": f"[{-limit:g}, {limit:g}]"},
        )
    return values
