"""The largest replies that the limits allow fit in 4 MiB, whatever the model."""

import math

import pytest
from infosink.serving.limits import MESSAGE_BYTES, explicit_noise_rows
from infosink.serving.models.message_limits import message_limits
from infosink.serving.models.model_file import Description
from infosink.v1.model_pb2 import Category, ImageSpace, LatentSpace, Model, PointSpace, SampleSpace, Style
from infosink.v1.sampling_service_pb2 import (
    Code,
    Draw,
    InferCodesResponse,
    Noise,
    PngImages,
    SampleBatch,
    StreamSamplesRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, DataType, Tensor

FIXED = {"model": "m" * 64, "checkpoint_sha256": "f" * 64, "execution_provider": "e" * 64, "runtime_version": "r" * 64}


def tensor(data_type: DataType, *shape: int) -> Tensor:
    return Tensor(data_type=data_type, shape=shape, data=bytes(math.prod(shape) * (4 if data_type == 2 else 1)))


def description(categories: int, styles: int, label: str, shape: tuple[int, ...]) -> Description:
    space = (
        SampleSpace(image=ImageSpace(channels=shape[0], height=shape[1], width=shape[2]))
        if len(shape) == 3
        else SampleSpace(point=PointSpace(dimensions=shape[0]))
    )
    latents = LatentSpace(categories=[Category(label=label)] * categories, styles=[Style()] * styles)
    return Description("generator", Model(latent_space=latents, sample_space=space))


@pytest.mark.parametrize("categories", [1, 200, 4096])
@pytest.mark.parametrize("styles", [0, 2, 256])
@pytest.mark.parametrize("label", ["", "x" * 128])
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 8, 8), (3, 64, 64)])
def test_the_largest_replies_fit(categories: int, styles: int, label: str, shape: tuple[int, ...]) -> None:
    images = len(shape) == 3
    limits = message_limits(description(categories, styles, label, shape), 7)
    assert limits.stream_samples == 7

    def size(count: int, **samples: object) -> int:
        batch = SampleBatch(
            **FIXED,
            noise_algorithm="philox4x64-10/box-muller/1",
            seed=2**64 - 1,
            first_index=2**64 - 1,
            shared_noise_index=2**64 - 1,
            categories=[categories - 1] * count,
            labels=[label] * count,
            style=tensor(DATA_TYPE_FLOAT32, count, styles),
            **samples,
        )
        return batch.ByteSize() + 16

    many = limits.unary_float32_samples
    assert size(many, tensor=tensor(DATA_TYPE_FLOAT32, many, *shape)) <= MESSAGE_BYTES
    if images:
        many = limits.unary_uint8_samples
        assert size(many, tensor=tensor(DATA_TYPE_UINT8, many, *shape)) <= MESSAGE_BYTES
        many = limits.unary_png_samples
        incompressible = bytes(math.prod(shape) + 100)
        assert size(many, png=PngImages(images=[incompressible] * many)) <= MESSAGE_BYTES
    many = limits.inferred_samples
    inferred = InferCodesResponse(
        **FIXED,
        categories=[categories - 1] * many,
        labels=[label] * many,
        category_probability=tensor(DATA_TYPE_FLOAT32, many, categories),
        style_mean=tensor(DATA_TYPE_FLOAT32, many, styles),
        style_std=tensor(DATA_TYPE_FLOAT32, many, styles),
    )
    assert inferred.ByteSize() <= MESSAGE_BYTES


@pytest.mark.parametrize("categories", [1, 4096])
@pytest.mark.parametrize("styles", [0, 2, 100, 256])
@pytest.mark.parametrize("label", ["", "x" * 128])
def test_the_largest_requests_fit(categories: int, styles: int, label: str) -> None:
    limits = message_limits(description(categories, styles, label, (2,)), 2**32 - 1)

    def size(code: Code, count: int) -> int:
        draw = Draw(count=2**32 - 1, codes=[code] * count, seed=2**64 - 1, first_index=2**64 - 1)
        return StreamSamplesRequest(model="m" * 64, draw=draw, encoding=3).ByteSize()

    by_label = Code(label=label, style=[0.5] * styles)
    by_category = Code(category=categories - 1, style=[0.5] * styles)
    assert max(size(by_label, limits.codes), size(by_category, limits.codes)) <= MESSAGE_BYTES
    # As many as this server accepts at all, or nearly as many as fit.
    larger = max((by_label, by_category), key=lambda code: code.ByteSize())
    assert limits.codes == 16384 or size(larger, limits.codes + limits.codes // 4) > MESSAGE_BYTES


@pytest.mark.parametrize("dimensions", [1, 62, 65536])
def test_the_most_explicit_noise_fits(dimensions: int) -> None:
    def size(rows: int) -> int:
        noise = Noise(values=tensor(DATA_TYPE_FLOAT32, rows, dimensions))
        return StreamSamplesRequest(model="m" * 64, draw=Draw(count=rows, seed=2**64 - 1, noise=noise)).ByteSize()

    rows = explicit_noise_rows(dimensions)
    assert size(rows) <= MESSAGE_BYTES
    assert size(rows + 1 + 1024 // dimensions) > MESSAGE_BYTES
    assert explicit_noise_rows(0) is None
