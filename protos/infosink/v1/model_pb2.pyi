from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LatentSpace(_message.Message):
    __slots__ = ("categories", "styles", "noise_dimensions")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    NOISE_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    styles: _containers.RepeatedCompositeFieldContainer[Style]
    noise_dimensions: int
    def __init__(self, categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., styles: _Optional[_Iterable[_Union[Style, _Mapping]]] = ..., noise_dimensions: _Optional[int] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("label", "label_share", "sample_share", "recovery", "agreement")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_SHARE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SHARE_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    label: str
    label_share: float
    sample_share: float
    recovery: float
    agreement: float
    def __init__(self, label: _Optional[str] = ..., label_share: _Optional[float] = ..., sample_share: _Optional[float] = ..., recovery: _Optional[float] = ..., agreement: _Optional[float] = ...) -> None: ...

class Style(_message.Message):
    __slots__ = ("name", "meaning")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    name: str
    meaning: str
    def __init__(self, name: _Optional[str] = ..., meaning: _Optional[str] = ...) -> None: ...

class SampleSpace(_message.Message):
    __slots__ = ("image", "point")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    image: ImageSpace
    point: PointSpace
    def __init__(self, image: _Optional[_Union[ImageSpace, _Mapping]] = ..., point: _Optional[_Union[PointSpace, _Mapping]] = ...) -> None: ...

class ImageSpace(_message.Message):
    __slots__ = ("channels", "height", "width", "padding_top", "padding_left", "padding_bottom", "padding_right", "background", "minimum", "maximum")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PADDING_TOP_FIELD_NUMBER: _ClassVar[int]
    PADDING_LEFT_FIELD_NUMBER: _ClassVar[int]
    PADDING_BOTTOM_FIELD_NUMBER: _ClassVar[int]
    PADDING_RIGHT_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    padding_top: int
    padding_left: int
    padding_bottom: int
    padding_right: int
    background: int
    minimum: float
    maximum: float
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., padding_top: _Optional[int] = ..., padding_left: _Optional[int] = ..., padding_bottom: _Optional[int] = ..., padding_right: _Optional[int] = ..., background: _Optional[int] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class PointSpace(_message.Message):
    __slots__ = ("dimensions",)
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    dimensions: int
    def __init__(self, dimensions: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "data_set", "latent_space", "sample_space", "checkpoint_sha256", "config_json", "parity_json", "licence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    LATENT_SPACE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SPACE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    PARITY_JSON_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_set: str
    latent_space: LatentSpace
    sample_space: SampleSpace
    checkpoint_sha256: str
    config_json: str
    parity_json: str
    licence: str
    def __init__(self, name: _Optional[str] = ..., data_set: _Optional[str] = ..., latent_space: _Optional[_Union[LatentSpace, _Mapping]] = ..., sample_space: _Optional[_Union[SampleSpace, _Mapping]] = ..., checkpoint_sha256: _Optional[str] = ..., config_json: _Optional[str] = ..., parity_json: _Optional[str] = ..., licence: _Optional[str] = ...) -> None: ...
