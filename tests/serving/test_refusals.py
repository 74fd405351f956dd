"""Every bad request gets its status and a message that names the value, the limit and the remedy."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo
from grpc_status import rpc_status
from infosink.oip.open_inference_service_pb2 import ModelInferRequest
from infosink.oip.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_PNG,
    ENCODING_UINT8,
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    Noise,
    PngImages,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, Tensor
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
RESOURCE = ResourceInfo.DESCRIPTOR
NAN = float("nan")


def floats(*shape: int, value: float = 0, length: int | None = None) -> Tensor:
    data = np.full(shape, value, "<f4").tobytes()
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=shape, data=data if length is None else bytes(length))


def pixels(*shape: int) -> Tensor:
    return Tensor(data_type=DATA_TYPE_UINT8, shape=shape, data=bytes(int(np.prod(shape))))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def codes(*many: Code, **one: object) -> Draw:
    return Draw(count=4, codes=many or [Code(**one)])


DRAWS = {
    "absent": (None, INVALID, ["draw.count is 0", "at least 1"]),
    "no samples": (Draw(), INVALID, ["draw.count is 0", "at least 1"]),
    "beyond the last index": (
        Draw(count=2, first_index=2**64 - 1),
        INVALID,
        ["draw.first_index + draw.count", str(2**64 + 1), "2^64", "lower index"],
    ),
    "category": (codes(category=4), INVALID, ["codes[0].category is 4", "0 to 3"]),
    "later category": (codes(Code(), Code(category=2**32 - 1)), INVALID, ["codes[1].category is 4294967295"]),
    "label": (codes(label="5"), PRECONDITION, ['codes[0].label is "5"', '"0", "1", "7"']),
    "empty label": (codes(label=""), PRECONDITION, ['label is ""', '"0", "1", "7"']),
    "huge label": (codes(label="x" * 10**6), PRECONDITION, ['"' + "x" * 40 + '…"', '"0", "1", "7"']),
    "control characters": (codes(label="\n\x1b[31m"), PRECONDITION, ['"\ufffd\ufffd[31m"']),
    "too few styles": (codes(style=[0.5]), INVALID, ["codes[0].style has 1 values", "2 style codes"]),
    "too many styles": (codes(style=[0.5] * 3), INVALID, ["codes[0].style has 3 values", "2 style codes"]),
    "style over 1": (codes(style=[0, 1.01]), INVALID, ["codes[0].style[1] is 1.01", "[-1, 1]"]),
    "style under -1": (codes(Code(), Code(style=[-3, 0])), INVALID, ["codes[1].style[0] is -3", "[-1, 1]"]),
    "style NaN": (codes(style=[0, NAN]), INVALID, ["style[1] is nan", "[-1, 1]"]),
    "style infinite": (codes(style=[float("-inf"), 0]), INVALID, ["style[0] is -inf", "[-1, 1]"]),
    "too many codes": (codes(*[Code()] * 16385), INVALID, ["16385 codes", "16384", "split"]),
    "noise too narrow": (
        Draw(count=4, noise=Noise(values=floats(4, 2))),
        INVALID,
        ["draw.noise.values", "[4, 3] or [1, 3]", "[4, 2]"],
    ),
    "noise for other samples": (Draw(count=4, noise=Noise(values=floats(3, 3))), INVALID, ["[4, 3] or [1, 3]"]),
    "noise flat": (Draw(count=4, noise=Noise(values=floats(12))), INVALID, ["[4, 3] or [1, 3]", "[12]"]),
    "noise shapeless": (Draw(count=4, noise=Noise(values=Tensor(data_type=2))), INVALID, ["[4, 3]", "has []"]),
    "noise of many dimensions": (
        Draw(count=4, noise=Noise(values=Tensor(data_type=2, shape=[1] * 10**5))),
        INVALID,
        ["100000 dimensions"],
    ),
    "noise type": (Draw(count=4, noise=Noise(values=pixels(4, 3))), INVALID, ["must be FLOAT32", "UINT8"]),
    "noise type absent": (Draw(count=4, noise=Noise(values=Tensor())), INVALID, ["must be FLOAT32", "UNSPECIFIED"]),
    "noise type unknown": (Draw(count=4, noise=Noise(values=Tensor(data_type=9))), INVALID, ["9, which is unknown"]),
    "noise too short": (
        Draw(count=4, noise=Noise(values=floats(4, 3, length=47))),
        INVALID,
        ["needs 48 bytes", "has 47"],
    ),
    "noise too long": (Draw(count=4, noise=Noise(values=floats(1, 3, length=13))), INVALID, ["needs 12", "has 13"]),
    "noise NaN": (Draw(count=4, noise=Noise(values=floats(1, 3, value=NAN))), INVALID, ["not finite"]),
    "noise infinite": (
        Draw(count=4, noise=Noise(values=floats(4, 3, value=float("inf")))),
        INVALID,
        ["draw.noise.values", "not finite"],
    ),
    "noise over 10": (
        Draw(count=1, noise=Noise(values=floats(1, 3, value=10.5))),
        INVALID,
        ["draw.noise.values[0, 0] is 10.5", "[-10, 10]"],
    ),
    "huge noise": (
        Draw(count=4, noise=Noise(values=floats(4, 3, value=-3e38))),
        INVALID,
        ["draw.noise.values[0, 0] is -3e+38", "[-10, 10]"],
    ),
}


OUT_OF_RANGE, MISSING, SHAPE, TYPE = "VALUE_OUT_OF_RANGE", "VALUE_MISSING", "SHAPE_MISMATCH", "DATA_TYPE_MISMATCH"
DRAW_FAULTS = {
    "absent": (MISSING, "draw.count"),
    "no samples": (MISSING, "draw.count"),
    "beyond the last index": (OUT_OF_RANGE, "draw.first_index"),
    "category": (OUT_OF_RANGE, "draw.codes[0].category"),
    "later category": (OUT_OF_RANGE, "draw.codes[1].category"),
    "label": ("LABEL_UNREACHABLE", "draw.codes[0].label"),
    "empty label": ("LABEL_UNREACHABLE", "draw.codes[0].label"),
    "huge label": ("LABEL_UNREACHABLE", "draw.codes[0].label"),
    "control characters": ("LABEL_UNREACHABLE", "draw.codes[0].label"),
    "too few styles": (SHAPE, "draw.codes[0].style"),
    "too many styles": (SHAPE, "draw.codes[0].style"),
    "style over 1": (OUT_OF_RANGE, "draw.codes[0].style[1]"),
    "style under -1": (OUT_OF_RANGE, "draw.codes[1].style[0]"),
    "style NaN": (OUT_OF_RANGE, "draw.codes[0].style[1]"),
    "style infinite": (OUT_OF_RANGE, "draw.codes[0].style[0]"),
    "too many codes": ("LIMIT_EXCEEDED", "draw.codes"),
    "noise too narrow": (SHAPE, "draw.noise.values.shape"),
    "noise for other samples": (SHAPE, "draw.noise.values.shape"),
    "noise flat": (SHAPE, "draw.noise.values.shape"),
    "noise shapeless": (SHAPE, "draw.noise.values.shape"),
    "noise of many dimensions": (SHAPE, "draw.noise.values.shape"),
    "noise type": (TYPE, "draw.noise.values.data_type"),
    "noise type absent": (TYPE, "draw.noise.values.data_type"),
    "noise type unknown": (TYPE, "draw.noise.values.data_type"),
    "noise too short": ("LENGTH_MISMATCH", "draw.noise.values.data"),
    "noise too long": ("LENGTH_MISMATCH", "draw.noise.values.data"),
    "noise NaN": ("VALUE_NOT_FINITE", "draw.noise.values.data"),
    "noise infinite": ("VALUE_NOT_FINITE", "draw.noise.values.data"),
    "noise over 10": (OUT_OF_RANGE, "draw.noise.values.data"),
    "huge noise": (OUT_OF_RANGE, "draw.noise.values.data"),
}


def faults(method: Callable, request: object) -> tuple[str, list[str]]:
    """The reason of a refusal, and the fields at fault."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=60)
    information, bad, failed = ErrorInfo(), BadRequest(), PreconditionFailure()
    for detail in rpc_status.from_call(caught.value).details:
        assert detail.Unpack(information) or detail.Unpack(bad) or detail.Unpack(failed) or detail.Is(RESOURCE)
    assert information.domain == "infosink"
    named = [
        *((one.field, one.reason) for one in bad.field_violations),
        *((f.subject, f.type) for f in failed.violations),
    ]
    assert not named or named[0][1] == information.reason
    return information.reason, [field for field, _ in named]


@pytest.mark.parametrize("case", DRAWS)
def test_a_bad_draw_names_its_field(stub: SamplingServiceStub, case: str) -> None:
    reason, field = DRAW_FAULTS[case]
    assert faults(stub.Sample, SampleRequest(draw=DRAWS[case][0])) == (reason, [field])


def test_all_that_is_wrong_with_a_draw_is_told_at_once(stub: SamplingServiceStub, refusal: Callable) -> None:
    bad = [Code(category=9), Code(label="5"), Code(style=[2, -2]), Code(category=1, style=[0.5])]
    request = SampleRequest(draw=Draw(count=0, first_index=2**64 - 1, codes=bad))
    assert faults(stub.Sample, request) == (
        OUT_OF_RANGE,
        [
            "draw.codes[0].category",
            "draw.codes[2].style[0]",
            "draw.codes[2].style[1]",
            "draw.codes[3].style",
            "draw.count",
            "draw.codes[1].label",
        ],
    )
    code, message = refusal(stub.Sample, request)
    assert code == INVALID
    assert message == "draw.codes[0].category is 9, but tiny-images has the categories 0 to 3 (and 5 more)"


def test_no_more_than_sixteen_fields_are_named(stub: SamplingServiceStub, refusal: Callable) -> None:
    request = SampleRequest(draw=codes(*[Code(category=9)] * 16384))
    _, fields = faults(stub.Sample, request)
    assert fields == [f"draw.codes[{position}].category" for position in range(16)]
    _, message = refusal(stub.Sample, request)
    assert message.endswith("(and at least 15 more)")


@pytest.mark.parametrize("case", DRAWS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_bad_draw_is_refused(stub: SamplingServiceStub, refusal: Callable, case: str, streamed: bool) -> None:
    draw, status, parts = DRAWS[case]
    if streamed:
        code, message = refusal(stub.StreamSamples, StreamSamplesRequest(draw=draw))
    else:
        code, message = refusal(stub.Sample, SampleRequest(draw=draw))
    assert code == status, message
    for part in parts:
        assert part in message
    assert len(message) < 400


def test_explicit_noise_that_cannot_fit_is_refused_with_its_limit(stub: SamplingServiceStub, refusal: Callable) -> None:
    limit = 349184
    draw = Draw(count=limit, noise=Noise(values=floats(10, 3)))
    _, message = refusal(stub.StreamSamples, StreamSamplesRequest(draw=draw))
    assert f"[{limit}, 3] or [1, 3]" in message
    draw.count = limit + 1
    code, message = refusal(stub.StreamSamples, StreamSamplesRequest(draw=draw))
    assert code == INVALID
    assert f"at most {limit} samples of tiny-images" in message
    assert "one row, [1, 3]" in message
    draw.noise.values.CopyFrom(floats(1, 3, value=10))
    call = stub.StreamSamples(StreamSamplesRequest(draw=draw))
    assert next(call).batch.noise_given
    call.cancel()


def test_a_stream_over_its_limit_is_refused(stub: SamplingServiceStub, refusal: Callable) -> None:
    code, message = refusal(stub.StreamSamples, StreamSamplesRequest(draw=Draw(count=1_000_001)))
    assert code == INVALID
    assert "draw.count is 1000001, over the limit of 1000000" in message
    assert "first_index" in message


@pytest.mark.parametrize("method", ["GetModel", "Sample", "StreamSamples", "InferCodes"])
def test_an_unknown_model_is_not_found(stub: SamplingServiceStub, refusal: Callable, method: str) -> None:
    request = {
        "GetModel": GetModelRequest(model="cifar"),
        "Sample": SampleRequest(model="cifar", draw=Draw(count=1)),
        "StreamSamples": StreamSamplesRequest(model="cifar", draw=Draw(count=1)),
        "InferCodes": InferCodesRequest(model="cifar"),
    }[method]
    code, message = refusal(getattr(stub, method), request)
    assert code == grpc.StatusCode.NOT_FOUND
    assert message == 'no model is named "cifar": those served are "tiny-images", "tiny-points", "bare"'


def test_models_encodings_and_counts_name_their_fields(stub: SamplingServiceStub) -> None:
    one = Draw(count=1)
    assert faults(stub.Sample, SampleRequest(model="cifar", draw=one)) == ("MODEL_UNKNOWN", [])
    assert faults(stub.Sample, SampleRequest(encoding=17, draw=one)) == ("VALUE_UNKNOWN", ["encoding"])
    points = SampleRequest(model="tiny-points", encoding=ENCODING_PNG, draw=one)
    assert faults(stub.Sample, points) == ("ENCODING_UNSUITABLE", ["encoding"])
    assert faults(stub.Sample, SampleRequest(draw=Draw(count=2**32 - 1))) == ("LIMIT_EXCEEDED", ["draw.count"])
    bare = InferCodesRequest(model="bare", tensor=pixels(1, 8, 8, 1))
    assert faults(stub.InferCodes, bare) == ("ENCODER_MISSING", ["model"])


@pytest.mark.parametrize("encoding", [ENCODING_UINT8, ENCODING_PNG])
def test_points_are_no_images(stub: SamplingServiceStub, refusal: Callable, encoding: int) -> None:
    request = SampleRequest(model="tiny-points", encoding=encoding, draw=Draw(count=1))
    code, message = refusal(stub.Sample, request)
    assert code == INVALID
    assert "tiny-points makes points: use FLOAT32" in message


def test_an_unknown_encoding_is_refused(stub: SamplingServiceStub, refusal: Callable) -> None:
    code, message = refusal(stub.Sample, SampleRequest(encoding=17, draw=Draw(count=1)))
    assert code == INVALID
    assert message == "encoding 17 is unknown: use UINT8, FLOAT32 or PNG"


def test_styles_of_a_model_without_any_are_refused(stub: SamplingServiceStub, refusal: Callable) -> None:
    code, message = refusal(stub.Sample, SampleRequest(model="tiny-points", draw=codes(style=[0.5])))
    assert code == INVALID
    assert "tiny-points has 0 style codes" in message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(*headers: tuple[int, int], data_bytes: int, bit_depth: int = 8, colour_type: int = 0) -> bytes:
    """A PNG of zeros, small for its size, with a header for each width and height given."""
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bit_depth, colour_type, 0, 0, 0)) for size in headers]
    data = chunk(b"IDAT", zlib.compress(bytes(data_bytes), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + data


NATIVE = png(Image.new("L", (6, 6), 100))
JPEG = io.BytesIO()
Image.new("L", (6, 6)).save(JPEG, "JPEG")

PNGS = {
    "empty": (b"", ["image 1 is not a PNG", "0 bytes"]),
    "text": (b"hello", ["image 1 is not a PNG", "5 bytes"]),
    "a JPEG": (JPEG.getvalue(), ["image 1 is not a PNG"]),
    "signature alone": (NATIVE[:8], ["image 1 is a truncated PNG of 8 bytes"]),
    "header alone": (NATIVE[:33], ["image 1 is a truncated or corrupt PNG"]),
    "cut short": (NATIVE[: len(NATIVE) // 2 + 10], ["image 1 is a truncated or corrupt PNG", "whole file"]),
    "corrupt": (NATIVE[:45] + b"\xff\xff" + NATIVE[47:], ["image 1 is a truncated or corrupt PNG"]),
    "no header": (NATIVE[:12] + b"IHDX" + NATIVE[16:], ["image 1 is a corrupt PNG"]),
    "a wrong size": (png(Image.new("L", (28, 28))), ["28x28 pixels", "6x6 or 8x8", "resize"]),
    "a transposed size": (png(Image.new("L", (6, 8))), ["6x8 pixels", "6x6 or 8x8"]),
    "a bomb": (zeros((50_000, 50_000), data_bytes=10**6), ["50000x50000 pixels", "6x6 or 8x8"]),
    "a bomb below a header": (
        zeros((6, 6), (5000, 5000), data_bytes=5001 * 5000),
        ["headers state 6x6 and 5000x5000 pixels"],
    ),
    "a frame below another": (zeros((6, 6), (8, 8), data_bytes=9 * 8), ["headers state 6x6 and 8x8 pixels"]),
    "16-bit grey": (zeros((6, 6), data_bytes=13 * 6, bit_depth=16), ["image 1 is a 16-bit PNG", "8 bits"]),
    "16-bit grey with opacity": (
        zeros((6, 6), data_bytes=25 * 6, bit_depth=16, colour_type=4),
        ["image 1 is a 16-bit PNG"],
    ),
    "16-bit colour": (zeros((6, 6), data_bytes=37 * 6, bit_depth=16, colour_type=2), ["image 1 is a 16-bit PNG"]),
    "16-bit colour with opacity": (
        zeros((8, 8), data_bytes=65 * 8, bit_depth=16, colour_type=6),
        ["image 1 is a 16-bit PNG"],
    ),
    "long for its size": (NATIVE + bytes(10**6), ["over the limit", "metadata"]),
}


def test_such_a_png_of_8_bits_is_read(stub: SamplingServiceStub) -> None:
    file = zeros((6, 6), data_bytes=7 * 6)
    reply = stub.InferCodes(InferCodesRequest(png=PngImages(images=[file])))
    assert reply == stub.InferCodes(InferCodesRequest(tensor=pixels(1, 6, 6, 1)))


@pytest.mark.parametrize("case", PNGS)
def test_a_bad_png_is_refused(stub: SamplingServiceStub, refusal: Callable, case: str) -> None:
    file, parts = PNGS[case]
    code, message = refusal(stub.InferCodes, InferCodesRequest(png=PngImages(images=[NATIVE, file])))
    assert code == INVALID
    for part in parts:
        assert part in message


def test_every_bad_png_is_named(stub: SamplingServiceStub, refusal: Callable) -> None:
    images = [NATIVE, b"", NATIVE[:50], png(Image.new("L", (28, 28)))]
    request = InferCodesRequest(png=PngImages(images=images))
    assert faults(stub.InferCodes, request) == ("IMAGE_UNREADABLE", [f"png.images[{i}]" for i in (1, 2, 3)])
    _, message = refusal(stub.InferCodes, request)
    assert message.endswith("or a tensor (and 2 more)")
    assert faults(stub.InferCodes, InferCodesRequest(png=PngImages(images=images[3:]))) == (SHAPE, ["png.images[0]"])
    deep = zeros((6, 6), data_bytes=13 * 6, bit_depth=16)
    assert faults(stub.InferCodes, InferCodesRequest(png=PngImages(images=[deep]))) == (TYPE, ["png.images[0]"])


SAMPLES = {
    "nothing": (InferCodesRequest(), ["no samples"]),
    "no images": (InferCodesRequest(png=PngImages()), ["0 samples", "at least 1"]),
    "an empty tensor": (InferCodesRequest(tensor=Tensor()), ["0 samples", "at least 1"]),
    "no rows": (InferCodesRequest(tensor=pixels(0, 8, 8, 1)), ["0 samples", "at least 1"]),
    "too many": (InferCodesRequest(tensor=Tensor(shape=[2**32 - 1])), ["4294967295 samples", "split"]),
    "too many images": (InferCodesRequest(png=PngImages(images=[b""] * 17000)), ["17000 samples", "split"]),
    "no type": (InferCodesRequest(tensor=Tensor(shape=[1, 8, 8, 1])), ["UINT8 or FLOAT32", "UNSPECIFIED"]),
    "a wrong size": (
        InferCodesRequest(tensor=pixels(2, 28, 28, 1)),
        ["UINT8", "[2, 6, 6, 1] or [2, 8, 8, 1]", "[2, 28, 28, 1]"],
    ),
    "no channels": (InferCodesRequest(tensor=pixels(2, 8, 8)), ["[2, 6, 6, 1] or [2, 8, 8, 1]", "[2, 8, 8]"]),
    "colour": (InferCodesRequest(tensor=pixels(1, 8, 8, 3)), ["[1, 6, 6, 1] or [1, 8, 8, 1]"]),
    "channels last": (
        InferCodesRequest(tensor=floats(1, 8, 8, 1)),
        ["FLOAT32", "[1, 1, 6, 6] or [1, 1, 8, 8]", "[1, 8, 8, 1]"],
    ),
    "short": (
        InferCodesRequest(tensor=Tensor(data_type=1, shape=[1, 8, 8, 1], data=bytes(63))),
        ["needs 64 bytes", "63"],
    ),
    "long": (InferCodesRequest(tensor=floats(1, 1, 8, 8, length=260)), ["needs 256 bytes", "260"]),
    "NaN": (InferCodesRequest(tensor=floats(1, 1, 8, 8, value=NAN)), ["not finite"]),
    "0 to 255": (InferCodesRequest(tensor=floats(1, 1, 8, 8, value=255)), ["255", "[-1, 1]", "UINT8"]),
    "under the range": (InferCodesRequest(tensor=floats(1, 1, 6, 6, value=-1.1)), ["-1.1", "[-1, 1]"]),
    "images for points": (
        InferCodesRequest(model="tiny-points", png=PngImages(images=[NATIVE])),
        ["points, not images", "FLOAT32"],
    ),
    "levels for points": (InferCodesRequest(model="tiny-points", tensor=pixels(3, 2)), ["must be FLOAT32"]),
    "points far away": (
        InferCodesRequest(model="tiny-points", tensor=floats(3, 2, value=-1.5e6)),
        ["tensor[0, 0] is -1.5e+06", "[-1e+06, 1e+06]"],
    ),
    "points in space": (InferCodesRequest(model="tiny-points", tensor=floats(3, 3)), ["[3, 2]", "[3, 3]"]),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_bad_samples_are_refused(stub: SamplingServiceStub, refusal: Callable, case: str) -> None:
    request, parts = SAMPLES[case]
    code, message = refusal(stub.InferCodes, request)
    assert code == INVALID
    for part in parts:
        assert part in message


SAMPLE_FAULTS = {
    "nothing": (MISSING, "samples"),
    "no images": (MISSING, "png.images"),
    "an empty tensor": (MISSING, "tensor.shape"),
    "no rows": (MISSING, "tensor.shape"),
    "too many": ("LIMIT_EXCEEDED", "tensor.shape"),
    "too many images": ("LIMIT_EXCEEDED", "png.images"),
    "no type": (TYPE, "tensor.data_type"),
    "a wrong size": (SHAPE, "tensor.shape"),
    "no channels": (SHAPE, "tensor.shape"),
    "colour": (SHAPE, "tensor.shape"),
    "channels last": (SHAPE, "tensor.shape"),
    "short": ("LENGTH_MISMATCH", "tensor.data"),
    "long": ("LENGTH_MISMATCH", "tensor.data"),
    "NaN": ("VALUE_NOT_FINITE", "tensor.data"),
    "0 to 255": (OUT_OF_RANGE, "tensor.data"),
    "under the range": (OUT_OF_RANGE, "tensor.data"),
    "images for points": ("ENCODING_UNSUITABLE", "png"),
    "levels for points": (TYPE, "tensor.data_type"),
    "points far away": (OUT_OF_RANGE, "tensor.data"),
    "points in space": (SHAPE, "tensor.shape"),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_bad_samples_name_their_field(stub: SamplingServiceStub, case: str) -> None:
    reason, field = SAMPLE_FAULTS[case]
    assert faults(stub.InferCodes, SAMPLES[case][0]) == (reason, [field])


def test_float_images_may_leave_their_range_by_rounding(stub: SamplingServiceStub) -> None:
    assert stub.InferCodes(InferCodesRequest(tensor=floats(1, 1, 8, 8, value=1.000001))).categories


def test_the_furthest_points_are_read(stub: SamplingServiceStub) -> None:
    reply = stub.InferCodes(InferCodesRequest(model="tiny-points", tensor=floats(1, 2, value=1e6)))
    probability = np.frombuffer(reply.category_probability.data, "<f4")
    assert probability.sum() == pytest.approx(1)


def test_codes_are_not_inferred_without_an_encoder(stub: SamplingServiceStub, refusal: Callable) -> None:
    code, message = refusal(stub.InferCodes, InferCodesRequest(model="bare", tensor=pixels(1, 8, 8, 1)))
    assert code == PRECONDITION
    assert "bare is served without its encoder" in message


def test_a_message_over_4_mib_is_not_received(stub: SamplingServiceStub, refusal: Callable) -> None:
    code, _ = refusal(stub.InferCodes, InferCodesRequest(png=PngImages(images=[bytes(5 * 2**20)])))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def fail_on_large_noise(model: onnx.ModelProto) -> None:
    """Adds a lookup to the sample whose index is outside its table where any noise exceeds 8."""
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros(1, np.float32), "table"),
            numpy_helper.from_array(np.array(8, np.float32), "largest"),
        ]
    )
    maker = next(node for node in graph.node if "sample" in node.output)
    maker.output[0] = "sound_sample"
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["noise"], ["peak"], keepdims=0),
            helper.make_node("Greater", ["peak", "largest"], ["too_large"]),
            helper.make_node("Cast", ["too_large"], ["position"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "position"], ["nothing"], name="a_node_within"),
            helper.make_node("Add", ["sound_sample", "nothing"], ["sample"]),
        ]
    )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(in_order(nodes, {value.name for value in [*graph.input, *graph.initializer]}))


def in_order(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """The nodes, each after those whose outputs it reads."""
    ordered: list[onnx.NodeProto] = []
    while nodes:
        ready = [node for node in nodes if known.issuperset(node.input)]
        ordered += ready
        known.update(output for node in ready for output in node.output)
        nodes = [node for node in nodes if node not in ready]
    return ordered


def test_an_unexpected_failure_tells_the_client_nothing_but_its_id(
    altered: Callable[..., Path],
    load_file: Callable,
    start_server: Callable,
    refusal: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start_server(load_file(altered("gen.onnx", fail_on_large_noise)))
    draw = Draw(count=1, noise=Noise(values=floats(1, 3, value=9)))
    for method, request in [
        (server.stub.Sample, SampleRequest(draw=draw)),
        (server.stub.StreamSamples, StreamSamplesRequest(draw=draw)),
    ]:
        caplog.clear()
        code, message = refusal(method, request)
        assert code == grpc.StatusCode.INTERNAL
        text, request_id = message.split(" request id ")
        assert text == "internal error;"
        assert len(request_id) == 16
        assert request_id in caplog.text
        assert "a_node_within" in caplog.text
        assert "Traceback" in caplog.text
    assert len(server.stub.Sample(SampleRequest(draw=Draw(count=3))).batch.categories) == 3


def square_root_of_rest(model: onnx.ModelProto, source: str, largest: float, target: str) -> None:
    """Adds 0 to an output, and NaN where a value of an input exceeds `largest`."""
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(largest, np.float32), "largest"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ]
    )
    maker = next(node for node in graph.node if target in node.output)
    maker.output[0] = "sound"
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [source], ["peak"], keepdims=0),
            helper.make_node("Sub", ["largest", "peak"], ["rest"]),
            helper.make_node("Sqrt", ["rest"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["nothing"]),
            helper.make_node("Add", ["sound", "nothing"], [target]),
        ]
    )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(in_order(nodes, {value.name for value in [*graph.input, *graph.initializer]}))


def test_what_is_not_finite_is_not_sent(
    altered: Callable[..., Path],
    load_file: Callable,
    start_server: Callable,
    refusal: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    generator = altered("gen.onnx", lambda model: square_root_of_rest(model, "noise", 8, "sample"))
    encoder = altered("q.onnx", lambda model: square_root_of_rest(model, "sample", 1.0005, "style_mean"), "q.onnx")
    stub = start_server(load_file(generator, encoder=encoder)).stub
    draw = Draw(count=100, noise=Noise(values=floats(1, 3, value=9)))
    for method, request, output in [
        (stub.Sample, SampleRequest(draw=draw, encoding=ENCODING_UINT8), "sample"),
        (stub.Sample, SampleRequest(draw=draw, encoding=ENCODING_FLOAT32), "sample"),
        (stub.StreamSamples, StreamSamplesRequest(draw=draw, encoding=ENCODING_PNG), "sample"),
        (stub.InferCodes, InferCodesRequest(tensor=floats(1, 1, 8, 8, value=1.0008)), "style_mean"),
    ]:
        caplog.clear()
        code, message = refusal(method, request)
        assert code == grpc.StatusCode.INTERNAL
        assert message.removeprefix("internal error; request id ") in caplog.text
        assert f"the output {output} holds values that are not finite" in caplog.text
    assert stub.Sample(SampleRequest(draw=Draw(count=3))).batch.categories
    assert stub.InferCodes(InferCodesRequest(tensor=floats(1, 1, 8, 8, value=1))).categories


def test_no_path_names_a_model(running, schema_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what is answered tell a file that is there from none."""
    monkeypatch.chdir(schema_1)
    infer = GRPCInferenceServiceStub(running.channel).ModelInfer

    def refused(name: str) -> list[tuple[grpc.StatusCode, bytes]]:
        requests = [
            (running.stub.GetModel, GetModelRequest(model=name)),
            (running.stub.Sample, SampleRequest(model=name, draw=Draw(count=1))),
            (running.stub.StreamSamples, StreamSamplesRequest(model=name, draw=Draw(count=1))),
            (running.stub.InferCodes, InferCodesRequest(model=name, tensor=pixels(1, 8, 8, 1))),
            (infer, ModelInferRequest(model_name=name)),
        ]
        answers = []
        for method, request in requests:
            with pytest.raises(grpc.RpcError) as caught:
                list(answer) if isinstance(answer := method(request), Iterator) else answer
            told = rpc_status.from_call(caught.value).SerializeToString()
            assert name.encode() in told
            answers.append((caught.value.code(), told.replace(name.encode(), b"")))
        return answers

    answers = refused("gen.onnx")
    assert [code for code, _ in answers] == [grpc.StatusCode.NOT_FOUND] * 5
    assert answers == refused("neg.onnx")
    for path in ("./gen.onnx", "../schema-1/gen.onnx"):
        assert [code for code, _ in refused(path)] == [grpc.StatusCode.NOT_FOUND] * 5
