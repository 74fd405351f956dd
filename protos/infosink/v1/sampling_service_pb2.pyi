from infosink.v1 import model_pb2 as _model_pb2
from infosink.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_UINT8: _ClassVar[Encoding]
    ENCODING_FLOAT32: _ClassVar[Encoding]
    ENCODING_PNG: _ClassVar[Encoding]
ENCODING_UNSPECIFIED: Encoding
ENCODING_UINT8: Encoding
ENCODING_FLOAT32: Encoding
ENCODING_PNG: Encoding

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("served_model", "card")
    SERVED_MODEL_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    served_model: ServedModel
    card: str
    def __init__(self, served_model: _Optional[_Union[ServedModel, _Mapping]] = ..., card: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("served_models",)
    SERVED_MODELS_FIELD_NUMBER: _ClassVar[int]
    served_models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, served_models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model", "infers_codes", "execution_provider", "runtime_version", "limits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INFERS_CODES_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    infers_codes: bool
    execution_provider: str
    runtime_version: str
    limits: Limits
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., infers_codes: bool = ..., execution_provider: _Optional[str] = ..., runtime_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("unary_uint8_samples", "unary_float32_samples", "unary_png_samples", "stream_samples", "codes", "inferred_samples")
    UNARY_UINT8_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    UNARY_FLOAT32_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    UNARY_PNG_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STREAM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    INFERRED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    unary_uint8_samples: int
    unary_float32_samples: int
    unary_png_samples: int
    stream_samples: int
    codes: int
    inferred_samples: int
    def __init__(self, unary_uint8_samples: _Optional[int] = ..., unary_float32_samples: _Optional[int] = ..., unary_png_samples: _Optional[int] = ..., stream_samples: _Optional[int] = ..., codes: _Optional[int] = ..., inferred_samples: _Optional[int] = ...) -> None: ...

class Code(_message.Message):
    __slots__ = ("category", "label", "style")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    category: int
    label: str
    style: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, category: _Optional[int] = ..., label: _Optional[str] = ..., style: _Optional[_Iterable[float]] = ...) -> None: ...

class Noise(_message.Message):
    __slots__ = ("values", "shared_index")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SHARED_INDEX_FIELD_NUMBER: _ClassVar[int]
    values: _tensor_pb2.Tensor
    shared_index: int
    def __init__(self, values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., shared_index: _Optional[int] = ...) -> None: ...

class Draw(_message.Message):
    __slots__ = ("count", "codes", "noise", "seed", "first_index")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    count: int
    codes: _containers.RepeatedCompositeFieldContainer[Code]
    noise: Noise
    seed: int
    first_index: int
    def __init__(self, count: _Optional[int] = ..., codes: _Optional[_Iterable[_Union[Code, _Mapping]]] = ..., noise: _Optional[_Union[Noise, _Mapping]] = ..., seed: _Optional[int] = ..., first_index: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("model", "draw", "encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    draw: Draw
    encoding: Encoding
    def __init__(self, model: _Optional[str] = ..., draw: _Optional[_Union[Draw, _Mapping]] = ..., encoding: _Optional[_Union[Encoding, str]] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: SampleBatch
    def __init__(self, batch: _Optional[_Union[SampleBatch, _Mapping]] = ...) -> None: ...

class StreamSamplesRequest(_message.Message):
    __slots__ = ("model", "draw", "encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    draw: Draw
    encoding: Encoding
    def __init__(self, model: _Optional[str] = ..., draw: _Optional[_Union[Draw, _Mapping]] = ..., encoding: _Optional[_Union[Encoding, str]] = ...) -> None: ...

class StreamSamplesResponse(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: SampleBatch
    def __init__(self, batch: _Optional[_Union[SampleBatch, _Mapping]] = ...) -> None: ...

class PngImages(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, images: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SampleBatch(_message.Message):
    __slots__ = ("model", "checkpoint_sha256", "noise_algorithm", "seed", "first_index", "categories", "labels", "style", "tensor", "png", "execution_provider", "runtime_version", "shared_noise_index", "noise_given")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    NOISE_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARED_NOISE_INDEX_FIELD_NUMBER: _ClassVar[int]
    NOISE_GIVEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    checkpoint_sha256: str
    noise_algorithm: str
    seed: int
    first_index: int
    categories: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    style: _tensor_pb2.Tensor
    tensor: _tensor_pb2.Tensor
    png: PngImages
    execution_provider: str
    runtime_version: str
    shared_noise_index: int
    noise_given: bool
    def __init__(self, model: _Optional[str] = ..., checkpoint_sha256: _Optional[str] = ..., noise_algorithm: _Optional[str] = ..., seed: _Optional[int] = ..., first_index: _Optional[int] = ..., categories: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[str]] = ..., style: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., png: _Optional[_Union[PngImages, _Mapping]] = ..., execution_provider: _Optional[str] = ..., runtime_version: _Optional[str] = ..., shared_noise_index: _Optional[int] = ..., noise_given: bool = ...) -> None: ...

class InferCodesRequest(_message.Message):
    __slots__ = ("model", "tensor", "png")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    model: str
    tensor: _tensor_pb2.Tensor
    png: PngImages
    def __init__(self, model: _Optional[str] = ..., tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., png: _Optional[_Union[PngImages, _Mapping]] = ...) -> None: ...

class InferCodesResponse(_message.Message):
    __slots__ = ("model", "checkpoint_sha256", "categories", "labels", "category_probability", "style_mean", "style_std", "execution_provider", "runtime_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    STYLE_MEAN_FIELD_NUMBER: _ClassVar[int]
    STYLE_STD_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    checkpoint_sha256: str
    categories: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    category_probability: _tensor_pb2.Tensor
    style_mean: _tensor_pb2.Tensor
    style_std: _tensor_pb2.Tensor
    execution_provider: str
    runtime_version: str
    def __init__(self, model: _Optional[str] = ..., checkpoint_sha256: _Optional[str] = ..., categories: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[str]] = ..., category_probability: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., style_mean: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., style_std: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., execution_provider: _Optional[str] = ..., runtime_version: _Optional[str] = ...) -> None: ...
