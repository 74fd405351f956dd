"""Any message at all is answered, or refused with a documented code; the server goes on."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st
from infosink.serving.observation.interceptor import ObservationInterceptor
from infosink.serving.observation.metrics import Metrics
from infosink.v1.sampling_service_pb2 import (
    Code,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    ListModelsRequest,
    Noise,
    PngImages,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, Tensor

DOCUMENTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
LIMIT = 60

NOISE = Tensor(data_type=DATA_TYPE_FLOAT32, shape=[3, 3], data=np.zeros((3, 3), "<f4").tobytes())
PIXELS = Tensor(data_type=DATA_TYPE_UINT8, shape=[2, 8, 8, 1], data=bytes(128))
POINTS = Tensor(data_type=DATA_TYPE_FLOAT32, shape=[2, 2], data=bytes(16))
CODES = [Code(category=1, style=[0.5, -0.5]), Code(label="7"), Code(style=[0, 1])]
DRAWS = [Draw(count=3, codes=CODES, seed=1), Draw(count=3, noise=Noise(values=NOISE)), Draw(count=2, first_index=9)]
SOUND: list[Message] = [
    GetModelRequest(model="bare"),
    ListModelsRequest(),
    *(SampleRequest(draw=draw) for draw in DRAWS),
    *(StreamSamplesRequest(draw=draw, encoding=3) for draw in DRAWS),
    SampleRequest(model="tiny-points", draw=Draw(count=2)),
    InferCodesRequest(tensor=PIXELS),
    InferCodesRequest(png=PngImages(images=[b"", b"\x89PNG\r\n\x1a\n"])),
    InferCodesRequest(model="tiny-points", tensor=POINTS),
]

# Few sizes between those that are quick to serve and those that no limit allows.
uint32 = st.integers(0, 70) | st.integers(2**31, 2**32 - 1)
VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_UINT32: uint32,
    FieldDescriptor.TYPE_UINT64: uint32 | st.integers(0, 2**64 - 1) | st.just(2**64 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(-1, 1, width=32) | st.floats(width=32),
    FieldDescriptor.TYPE_STRING: st.sampled_from(["", "tiny-images", "tiny-points", "bare", "7"])
    | st.text(max_size=200),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=200)
    | st.sampled_from([bytes(128), NOISE.data, b"\x89PNG\r\n\x1a\n"]),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 5) | st.integers(-(2**31), 2**31 - 1),
}


@st.composite
def requests(draw: st.DrawFn) -> Message:
    """A sound request with up to four fields, at any depth, set to anything."""
    sound = draw(st.sampled_from(SOUND))
    request = type(sound)()
    request.CopyFrom(sound)
    for _ in range(draw(st.integers(0, 4))):
        spoil(request, draw)
    return request


def spoil(message: Message, draw: st.DrawFn) -> None:
    if not message.DESCRIPTOR.fields:
        return
    fields = list(message.DESCRIPTOR.fields)
    deeper = [field for field in fields if field.message_type and draw(st.integers(0, 3))]
    field = draw(st.sampled_from(deeper or fields))
    if draw(st.integers(0, 9)) == 0:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        within = getattr(message, field.name)
        if field.is_repeated:
            within.add() if not within or draw(st.booleans()) else None
            within = within[draw(st.integers(0, len(within) - 1))]
        within.SetInParent()
        spoil(within, draw)
    elif field.is_repeated:
        values = getattr(message, field.name)
        if values and draw(st.booleans()):
            values[draw(st.integers(0, len(values) - 1))] = draw(VALUES[field.type])
        else:
            values.extend(draw(st.lists(VALUES[field.type], max_size=40)))
    else:
        setattr(message, field.name, draw(VALUES[field.type]))


@pytest.fixture(scope="module")
def server(
    start_server: Callable, load_file: Callable, schema_1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server of images, of points, and of images without an encoder, with what watches every call."""
    alone = tmp_path_factory.mktemp("alone") / "gen.onnx"
    shutil.copy(schema_1 / "gen.onnx", alone)
    models = [load_file(schema_1 / "gen.onnx"), load_file(schema_1 / "points-gen.onnx"), load_file(alone, name="bare")]
    return start_server(*models, interceptors=[ObservationInterceptor(Metrics([], lambda: []))])


def call(channel: grpc.Channel, method: str, request: bytes) -> grpc.RpcError | None:
    """What refuses the request; None where it is answered."""
    make: Callable = channel.unary_stream if method == "StreamSamples" else channel.unary_unary
    try:
        reply = make(f"/infosink.v1.SamplingService/{method}")(request, timeout=LIMIT)
        if isinstance(reply, Iterator):
            next(reply)
            reply.cancel()
    except grpc.RpcError as error:
        return error
    return None


def method_of(request: Message) -> str:
    return type(request).__name__.removesuffix("Request")


def names_a_field(path: str, message: Descriptor) -> bool:
    """Whether a path such as draw.codes[3].style is one of this message's."""
    if path in message.oneofs_by_name:
        return True
    first, _, rest = path.partition(".")
    matched = re.fullmatch(r"([a-z_]+)(\[\d+\])?", first)
    field = message.fields_by_name.get(matched[1]) if matched else None
    if field is None or (matched[2] and not field.is_repeated):
        return False
    return not rest or (field.message_type is not None and names_a_field(rest, field.message_type))


@settings(max_examples=600, deadline=None)
@given(request=requests())
def test_any_message_is_answered_or_refused_with_its_reason(server: Any, request: Message) -> None:
    error = call(server.channel, method_of(request), request.SerializeToString())
    if error is None:
        return
    assert error.code() in DOCUMENTED, (error.code(), error.details(), request)
    assert 0 < len(error.details()) < 1000
    assert error.details().isprintable()
    status = rpc_status.from_call(error)
    details = {packed.TypeName(): packed for packed in status.details}
    information, bad, failed = ErrorInfo(), BadRequest(), PreconditionFailure()
    assert details["google.rpc.ErrorInfo"].Unpack(information)
    assert re.fullmatch("[A-Z][A-Z_]+[A-Z]", information.reason)
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        assert details["google.rpc.BadRequest"].Unpack(bad)
        assert bad.field_violations[0].reason == information.reason
    elif "google.rpc.PreconditionFailure" in details:
        assert details["google.rpc.PreconditionFailure"].Unpack(failed)
    paths = [one.field for one in bad.field_violations] + [one.subject for one in failed.violations]
    assert [path for path in paths if not names_a_field(path, request.DESCRIPTOR)] == []


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), method=st.sampled_from(["GetModel", "Sample", "StreamSamples", "InferCodes"]))
def test_bytes_that_are_no_message_are_refused(server: Any, data: bytes, method: str) -> None:
    error = call(server.channel, method, data)
    assert error is None or error.code() in DOCUMENTED, error


@pytest.mark.parametrize("method", ["GetModel", "Sample", "StreamSamples"])
def test_a_request_that_is_no_message_is_said_to_be(server: Any, method: str) -> None:
    error = call(server.channel, method, b"\xff\xff")
    assert error is not None
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no message of this method" in error.details()
    information = ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(information)
    assert information.reason == "MESSAGE_MALFORMED"


def test_after_all_this_the_server_serves(server: Any) -> None:
    status = HealthStub(server.channel).Check(HealthCheckRequest(), timeout=LIMIT).status
    assert status == HealthCheckResponse.SERVING
    for request in SOUND[:-2]:
        error = call(server.channel, method_of(request), request.SerializeToString())
        assert error is None or "png" in str(request)
