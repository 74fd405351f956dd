"""The largest replies that the limits allow fit in 4 MiB, whatever the model."""

import math

import pytest
from infosink.serving.limits import MESSAGE_BYTES, message_limits
from infosink.serving.model_file import Description
from infosink.v1.model_pb2 import Category, ImageSpace, LatentSpace, Model, PointSpace, SampleSpace, Style
from infosink.v1.sampling_service_pb2 import InferCodesResponse, PngImages, SampleBatch
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, DataType, Tensor

FIXED = {"model": "m" * 64, "checkpoint_sha256": "f" * 64, "execution_provider": "e" * 64, "runtime_version": "r" * 64}


def tensor(data_type: DataType, *shape: int) -> Tensor:
    return Tensor(data_type=data_type, shape=shape, data=bytes(math.prod(shape) * (4 if data_type == 2 else 1)))


@pytest.mark.parametrize("categories", [1, 200, 4096])
@pytest.mark.parametrize("styles", [0, 2, 256])
@pytest.mark.parametrize("label", ["", "x" * 128])
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 8, 8), (3, 64, 64)])
def test_the_largest_replies_fit(categories: int, styles: int, label: str, shape: tuple[int, ...]) -> None:
    images = len(shape) == 3
    space = (
        SampleSpace(image=ImageSpace(channels=shape[0], height=shape[1], width=shape[2]))
        if images
        else SampleSpace(point=PointSpace(dimensions=shape[0]))
    )
    latents = LatentSpace(categories=[Category(label=label)] * categories, styles=[Style()] * styles)
    limits = message_limits(Description("generator", Model(latent_space=latents, sample_space=space)), 7)
    assert limits.stream_samples == 7

    def size(count: int, **samples: object) -> int:
        batch = SampleBatch(
            **FIXED,
            noise_algorithm="philox4x64-10/box-muller/1",
            seed=2**64 - 1,
            first_index=2**64 - 1,
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
