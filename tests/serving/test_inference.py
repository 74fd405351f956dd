"""InferCodes over a real socket: what is read back, from every form a sample can be sent in."""

import io
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_PNG,
    ENCODING_UINT8,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    InferCodesResponse,
    PngImages,
    SampleRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, Tensor
from PIL import Image

PROBABILITY_ROW = 16


def array(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))


def levels(pixels: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def infer_png(stub: SamplingServiceStub, *files: bytes) -> InferCodesResponse:
    return stub.InferCodes(InferCodesRequest(png=PngImages(images=files)))


@pytest.fixture(scope="module")
def native() -> np.ndarray:
    """uint8 [5, 6, 6, 1]: images in the native frame."""
    return np.random.default_rng(1).integers(0, 256, (5, 6, 6, 1), np.uint8)


@pytest.fixture(scope="module")
def read(stub: SamplingServiceStub, native: np.ndarray) -> InferCodesResponse:
    return stub.InferCodes(InferCodesRequest(tensor=levels(native)))


@pytest.mark.parametrize("model", ["tiny-images", "tiny-points"])
def test_codes_of_generated_samples_are_read_back(stub: SamplingServiceStub, model: str) -> None:
    request = SampleRequest(model=model, draw=Draw(count=300, seed=1), encoding=ENCODING_FLOAT32)
    drawn = stub.Sample(request).batch
    inferred = stub.InferCodes(InferCodesRequest(model=model, tensor=drawn.tensor))
    assert inferred.categories == drawn.categories
    assert inferred.labels == drawn.labels
    assert inferred.model == drawn.model
    assert inferred.checkpoint_sha256 == drawn.checkpoint_sha256
    assert inferred.execution_provider == "CPUExecutionProvider"
    assert inferred.runtime_version == drawn.runtime_version
    probability = array(inferred.category_probability)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(probability.argmax(1), drawn.categories)
    style_shape = [300, 2] if model == "tiny-images" else [300, 0]
    assert inferred.style_mean.shape == inferred.style_std.shape == style_shape


def test_styles_of_generated_samples_are_read_back(stub: SamplingServiceStub) -> None:
    drawn = stub.Sample(SampleRequest(draw=Draw(count=300, seed=1), encoding=ENCODING_UINT8)).batch
    inferred = stub.InferCodes(InferCodesRequest(tensor=drawn.tensor))
    for stated, mean in zip(array(drawn.style).T, array(inferred.style_mean).T, strict=True):
        assert np.corrcoef(stated, mean)[0, 1] > 0.95
    assert (array(inferred.style_std) > 0).all()


def test_an_image_alone_is_read_as_among_others(stub: SamplingServiceStub) -> None:
    drawn = stub.Sample(SampleRequest(draw=Draw(count=150, seed=1), encoding=ENCODING_FLOAT32)).batch
    together = stub.InferCodes(InferCodesRequest(tensor=drawn.tensor)).category_probability.data
    for row in (0, 63, 64, 149):
        image = Tensor(
            data_type=DATA_TYPE_FLOAT32, shape=[1, 1, 8, 8], data=drawn.tensor.data[row * 256 : (row + 1) * 256]
        )
        alone = stub.InferCodes(InferCodesRequest(tensor=image)).category_probability.data
        assert alone == together[row * PROBABILITY_ROW : (row + 1) * PROBABILITY_ROW]


def test_both_frames_and_all_forms_read_alike(
    stub: SamplingServiceStub, native: np.ndarray, read: InferCodesResponse
) -> None:
    padded = np.pad(native, ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert stub.InferCodes(InferCodesRequest(tensor=levels(padded))) == read
    for pixels in (native, padded):
        values = (-1 + pixels.astype(np.float64) * 2 / 255).astype("<f4").transpose(0, 3, 1, 2)
        tensor = Tensor(data_type=DATA_TYPE_FLOAT32, shape=values.shape, data=values.tobytes())
        assert stub.InferCodes(InferCodesRequest(tensor=tensor)) == read
        assert infer_png(stub, *(png(Image.fromarray(image[..., 0])) for image in pixels)) == read
    frames = [native[0], padded[1], native[2], padded[3], native[4]]
    assert infer_png(stub, *(png(Image.fromarray(image[..., 0])) for image in frames)) == read


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA", "P"])
def test_a_png_of_another_mode_reads_as_the_grey_image_it_shows(
    stub: SamplingServiceStub, native: np.ndarray, mode: str
) -> None:
    grey = Image.fromarray(native[0, ..., 0])
    shown = grey.quantize(64).convert("L") if mode == "P" else grey
    image = grey.quantize(64) if mode == "P" else grey.convert(mode)
    assert infer_png(stub, png(image)) == infer_png(stub, png(shown))


def test_a_one_bit_png_is_black_and_white(stub: SamplingServiceStub, native: np.ndarray) -> None:
    ink = native[0, ..., 0] > 127
    assert infer_png(stub, png(Image.fromarray(ink))) == infer_png(stub, png(Image.fromarray(ink.astype("u1") * 255)))


@pytest.mark.parametrize("transparent", ["RGBA", "LA", "palette"])
def test_transparent_pixels_show_the_background(
    stub: SamplingServiceStub, native: np.ndarray, transparent: str
) -> None:
    ink = native[0, ..., 0] > 127
    expected = infer_png(stub, png(Image.fromarray(ink.astype("u1") * 255)))
    white, opacity = Image.new("L", (6, 6), 255), Image.fromarray(ink.astype("u1") * 255)
    if transparent == "palette":
        palette = Image.fromarray(ink.astype("u1")).convert("P")
        palette.putpalette([255, 255, 255] * 2)
        file = png(palette, transparency=0)
    elif transparent == "LA":
        file = png(Image.merge("LA", (white, opacity)))
    else:
        file = png(Image.merge("RGBA", (white, white, white, opacity)))
    assert infer_png(stub, file) == expected


def test_what_is_drawn_as_png_can_be_read(stub: SamplingServiceStub) -> None:
    drawn = stub.Sample(SampleRequest(draw=Draw(count=40, seed=3), encoding=ENCODING_PNG)).batch
    assert infer_png(stub, *drawn.png.images).categories == drawn.categories


@pytest.mark.parametrize("model", ["tiny-images", "tiny-points"])
def test_the_limit_is_what_is_said(stub: SamplingServiceStub, model: str, refusal: Callable) -> None:
    limit = stub.GetModel(GetModelRequest(model=model)).served_model.limits.inferred_samples
    width = [1, 8, 8] if model == "tiny-images" else [2]
    request = InferCodesRequest(
        model=model,
        tensor=Tensor(data_type=DATA_TYPE_FLOAT32, shape=[limit, *width], data=bytes(4 * limit * int(np.prod(width)))),
    )
    reply = stub.InferCodes(request)
    assert len(reply.categories) == limit
    assert reply.ByteSize() < 4194304
    request.tensor.shape[0] = limit + 1
    request.tensor.data = b""
    code, message = refusal(stub.InferCodes, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{limit + 1} samples, over the limit of {limit}" in message
