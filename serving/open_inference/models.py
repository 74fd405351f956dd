"""What the Open Inference Protocol says of a served model: two models, each with its tensors.

A served model NAME is NAME, its generator, and NAME-encoder, where it has one. What a request to the generator leaves
out is drawn as the native service draws it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from infosink.oip.open_inference_service_pb2 import (
    TYPE_FP32,
    TYPE_INT64,
    TYPE_UINT8,
    DataType,
    ModelConfig,
    ModelInput,
    ModelMetadataResponse,
    ModelOutput,
    ModelParameter,
    ModelTensorReshape,
)

from ..errors import UnavailableError
from ..limits import fitting
from ..models.served_model import ServedModel
from ..runtime.batching import BatchedSession

Datatype = Literal["INT64", "FP32", "UINT8"]

_ITEM_BYTES: Mapping[Datatype, int] = {"INT64": 8, "FP32": 4, "UINT8": 1}
_DATA_TYPES: Mapping[Datatype, DataType] = {"INT64": TYPE_INT64, "FP32": TYPE_FP32, "UINT8": TYPE_UINT8}
_PLATFORM = "onnxruntime_onnx"
_BACKEND = "onnxruntime"
_PARAMETERS = {
    "count": "int64: how many samples, where the request has no inputs",
    "seed": "int64 or uint64: what inputs that are left out are drawn from; chosen by the server where absent",
    "first_index": "int64 or uint64: the index of the first sample; 0 where absent",
    "label": "string: draws the category among those that bear it; not with the input category",
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model, as the protocol names it."""

    name: str
    datatype: Datatype
    row: tuple[int, ...]
    """The shape without the batch dimension."""
    also: tuple[tuple[int, ...], ...] = ()
    """Other shapes of a row that are read too."""

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return _ITEM_BYTES[self.datatype] * math.prod(self.row)

    @property
    def message(self) -> ModelMetadataResponse.TensorMetadata:
        """As ModelMetadata states it."""
        return ModelMetadataResponse.TensorMetadata(name=self.name, datatype=self.datatype, shape=[-1, *self.row])


@dataclass(frozen=True)
class InferenceModel:
    """One of the two models that a served model is."""

    served: ServedModel
    role: Literal["generator", "encoder"]
    session: BatchedSession
    """What runs it."""

    @property
    def name(self) -> str:
        """The name a client asks for."""
        return self.served.encoder_name if self.role == "encoder" else self.served.name

    @property
    def version(self) -> str:
        """The checkpoint's SHA-256: a request that names it is answered from no other."""
        return self.served.checkpoint_sha256

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What it reads."""
        if self.role == "encoder":
            return _by_name(self._sample)
        return _by_name(
            TensorSpec("category", "INT64", (1,), also=((),)),
            TensorSpec("style", "FP32", (self.served.style_count,)),
            TensorSpec("noise", "FP32", (self.served.noise_dimensions,)),
        )

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What it gives; a generator's category and style are those that were asked for or drawn."""
        styles = (self.served.style_count,)
        if self.role == "encoder":
            return _by_name(
                TensorSpec("category_probability", "FP32", (len(self.served.labels),)),
                TensorSpec("style_mean", "FP32", styles),
                TensorSpec("style_std", "FP32", styles),
            )
        codes = TensorSpec("category", "INT64", (1,)), TensorSpec("style", "FP32", styles)
        if self.served.frames is None:
            return _by_name(self._sample, *codes)
        channels, height, width = self._sample.row
        return _by_name(self._sample, TensorSpec("pixels", "UINT8", (height, width, channels)), *codes)

    @property
    def parameters(self) -> Mapping[str, str]:
        """What a request may hold beside tensors, and what it means."""
        return _PARAMETERS if self.role == "generator" else {}

    def batch_limit(self, outputs: Iterable[TensorSpec]) -> int:
        """The rows of one request: as many as the native service takes, and as these outputs let fit in its reply."""
        limits = self.served.limits
        if self.role == "encoder":
            native = limits.inferred_samples
        else:
            native = max(limits.unary_uint8_samples, limits.unary_float32_samples)
        return min(native, fitting(max(1, sum(output.row_bytes for output in outputs))))

    def metadata(self) -> ModelMetadataResponse:
        """What ModelMetadata answers."""
        return ModelMetadataResponse(
            name=self.name,
            versions=[self.version],
            platform=_PLATFORM,
            inputs=[tensor.message for tensor in self.inputs.values()],
            outputs=[tensor.message for tensor in self.outputs.values()],
        )

    def config(self) -> ModelConfig:
        """What ModelConfig answers."""
        generates = self.role == "generator"
        labels = {"labels": json.dumps(self.served.labels)} if generates else {}
        readable = fitting(sum(tensor.row_bytes for tensor in self.inputs.values()))
        return ModelConfig(
            name=self.name,
            platform=_PLATFORM,
            backend=_BACKEND,
            max_batch_size=min(readable, self.batch_limit(self.outputs.values())),
            input=[
                ModelInput(
                    name=tensor.name,
                    data_type=_DATA_TYPES[tensor.datatype],
                    dims=tensor.row,
                    reshape=_reshape(tensor),
                    optional=generates,
                )
                for tensor in self.inputs.values()
            ],
            output=[
                ModelOutput(
                    name=tensor.name,
                    data_type=_DATA_TYPES[tensor.datatype],
                    dims=tensor.row,
                    reshape=_reshape(tensor),
                )
                for tensor in self.outputs.values()
            ],
            parameters={
                key: ModelParameter(string_value=value) for key, value in {**self.parameters, **labels}.items()
            },
        )

    @property
    def _sample(self) -> TensorSpec:
        shape, frames = self.served.description.sample_shape, self.served.frames
        return TensorSpec("sample", "FP32", shape, also=() if frames is None else ((shape[0], *frames.native_size),))


def generator_of(served: ServedModel) -> InferenceModel:
    """The model that draws samples."""
    return InferenceModel(served, "generator", served.generator)


def encoder_of(served: ServedModel) -> InferenceModel:
    """The model that infers codes.

    Raises:
        UnavailableError: If it is served without.
    """
    if served.encoder is None:
        raise UnavailableError(
            f"{served.name} is served without its encoder, so its codes cannot be inferred",
            reason="ENCODER_MISSING",
            field="model_name",
        )
    return InferenceModel(served, "encoder", served.encoder)


def inference_models(served: ServedModel) -> list[InferenceModel]:
    """All that a served model is."""
    return [generator_of(served)] + ([encoder_of(served)] if served.encoder is not None else [])


def _by_name(*tensors: TensorSpec) -> Mapping[str, TensorSpec]:
    return {tensor.name: tensor for tensor in tensors}


def _reshape(tensor: TensorSpec) -> ModelTensorReshape | None:
    # A configuration knows no tensor without dimensions; one number a row is sent as [1].
    return ModelTensorReshape() if tensor.name == "category" else None
