"""The Open Inference Protocol: the same samples and codes and the same checks, for clients that know no other."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infosink.oip.open_inference_service_pb2 import (
    TYPE_FP32,
    TYPE_INT64,
    TYPE_UINT8,
    InferParameter,
    InferTensorContents,
    ModelConfigRequest,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from infosink.oip.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from infosink.serving.errors import StartupError
from infosink.serving.models.registry import Registry
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_UINT8,
    Code,
    Draw,
    InferCodesRequest,
    Noise,
    SampleRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LIMIT = 60
DATATYPES = {"INT64": np.dtype("<i8"), "FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
CONTENTS = {"INT64": "int64_contents", "FP32": "fp32_contents"}

Arrays = dict[str, np.ndarray]


def request(model: str, arrays: Arrays, *, typed: bool = False, **rest: object) -> ModelInferRequest:
    message = ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        tensor = message.inputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
        if typed:
            tensor.contents.CopyFrom(InferTensorContents(**{CONTENTS[tensor.datatype]: array.ravel().tolist()}))
        else:
            message.raw_input_contents.append(array.tobytes())
    message.MergeFrom(ModelInferRequest(**rest))
    return message


def parameters(**values: int | str) -> dict[str, InferParameter]:
    return {
        name: InferParameter(string_param=value) if isinstance(value, str) else InferParameter(uint64_param=value)
        for name, value in values.items()
    }


def named(*names: str) -> list[ModelInferRequest.InferRequestedOutputTensor]:
    return [ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]


def arrays_of(response: ModelInferResponse) -> Arrays:
    return {
        output.name: np.frombuffer(raw, DATATYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def floats(array: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def latents(rows: int, *, categories: int, styles: int, noise: int) -> Arrays:
    generator = np.random.default_rng(rows)
    return {
        "category": generator.integers(0, categories, (rows, 1)).astype("<i8"),
        "style": generator.uniform(-1, 1, (rows, styles)).astype("<f4"),
        "noise": generator.standard_normal((rows, noise)).astype("<f4"),
    }


IMAGES = latents(130, categories=4, styles=2, noise=3)
POINTS = latents(130, categories=3, styles=0, noise=2)
STATED = pytest.mark.parametrize(("model", "stated"), [("tiny-images", IMAGES), ("tiny-points", POINTS)])


@pytest.fixture(scope="module")
def oip(running) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(running.channel)


def native_draw(stated: Arrays, **rest: object) -> Draw:
    codes = [
        Code(category=category, style=style)
        for category, style in zip(stated["category"][:, 0].tolist(), stated["style"].tolist(), strict=True)
    ]
    return Draw(count=len(codes), codes=codes, noise=Noise(values=floats(stated["noise"])), **rest)


def test_the_server_is_live_and_ready_and_says_what_it_is(oip) -> None:
    assert oip.ServerLive(ServerLiveRequest()).live
    assert oip.ServerReady(ServerReadyRequest()).ready
    metadata = oip.ServerMetadata(ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("infosink", "0.1.0")
    assert list(metadata.extensions) == ["model_configuration", "parameters"]


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("tiny-images", "", True),
        ("tiny-images-encoder", "", True),
        ("bare", "", True),
        ("bare-encoder", "", False),
        ("tiny-images", "1", False),
        ("cifar", "", False),
    ],
)
def test_models_that_can_answer_are_ready(oip, name: str, version: str, ready: bool) -> None:
    assert oip.ModelReady(ModelReadyRequest(name=name, version=version)).ready == ready


def test_metadata_states_the_tensors(oip, stub) -> None:
    drawn = stub.Sample(SampleRequest(draw=Draw(count=1))).batch

    def tensors(name: str) -> dict[str, list[tuple[str, str, list[int]]]]:
        metadata = oip.ModelMetadata(ModelMetadataRequest(name=name))
        assert (metadata.name, metadata.platform) == (name, "onnxruntime_onnx")
        return {
            part: [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in getattr(metadata, part)]
            for part in ("inputs", "outputs")
        }

    category = ("category", "INT64", [-1, 1])
    assert tensors("tiny-images") == {
        "inputs": [category, ("style", "FP32", [-1, 2]), ("noise", "FP32", [-1, 3])],
        "outputs": [
            ("sample", "FP32", [-1, 1, 8, 8]),
            ("pixels", "UINT8", [-1, 8, 8, 1]),
            category,
            ("style", "FP32", [-1, 2]),
        ],
    }
    assert tensors("tiny-images-encoder") == {
        "inputs": [("sample", "FP32", [-1, 1, 8, 8])],
        "outputs": [
            ("category_probability", "FP32", [-1, 4]),
            ("style_mean", "FP32", [-1, 2]),
            ("style_std", "FP32", [-1, 2]),
        ],
    }
    assert tensors("tiny-points")["outputs"] == [("sample", "FP32", [-1, 2]), category, ("style", "FP32", [-1, 0])]
    for name in ("tiny-images", "tiny-images-encoder"):
        assert oip.ModelMetadata(ModelMetadataRequest(name=name)).versions == [drawn.checkpoint_sha256]


def test_the_configuration_states_tensors_batch_and_parameters(oip) -> None:
    config = oip.ModelConfig(ModelConfigRequest(name="tiny-images")).config
    assert (config.name, config.platform, config.backend) == ("tiny-images", "onnxruntime_onnx", "onnxruntime")
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [
        ("category", TYPE_INT64, [1]), ("style", TYPE_FP32, [2]), ("noise", TYPE_FP32, [3]),
    ]  # fmt: skip
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.output] == [
        ("sample", TYPE_FP32, [1, 8, 8]), ("pixels", TYPE_UINT8, [8, 8, 1]), ("category", TYPE_INT64, [1]),
        ("style", TYPE_FP32, [2]),
    ]  # fmt: skip
    assert all(tensor.optional for tensor in config.input)
    assert set(config.parameters) == {"count", "seed", "first_index", "label", "labels"}
    assert json.loads(config.parameters["labels"].string_value) == ["0", "1", "1", "7"]
    encoder = oip.ModelConfig(ModelConfigRequest(name="tiny-images-encoder")).config
    assert [tensor.optional for tensor in encoder.input] == [False]
    assert not encoder.parameters


@pytest.mark.parametrize("model", ["tiny-images", "tiny-images-encoder", "tiny-points", "tiny-points-encoder"])
def test_the_largest_batch_fits_and_one_row_more_is_refused(oip, refusal: Callable, model: str) -> None:
    limit = oip.ModelConfig(ModelConfigRequest(name=model)).config.max_batch_size
    metadata = oip.ModelMetadata(ModelMetadataRequest(name=model))

    def rows(count: int) -> ModelInferRequest:
        return request(
            model,
            {
                tensor.name: np.zeros((count, *tensor.shape[1:]), DATATYPES[tensor.datatype])
                for tensor in metadata.inputs
            },
        )

    # Stock clients accept no more than 4 MiB in one message; the request must fit in as much.
    assert {len(array) for array in arrays_of(oip.ModelInfer(rows(limit), timeout=60)).values()} == {limit}
    code, message = refusal(oip.ModelInfer, rows(limit + 1))
    assert (code, f"{limit + 1} rows" in message, f"limit of {limit}" in message) == (INVALID, True, True)


@STATED
@pytest.mark.parametrize("typed", [False, True])
def test_stated_latents_give_what_the_native_service_gives(oip, stub, model: str, stated: Arrays, typed: bool) -> None:
    response = oip.ModelInfer(request(model, stated, typed=typed, id="a7"))
    assert (response.model_name, response.id) == (model, "a7")
    given = arrays_of(response)
    native = SampleRequest(model=model, draw=native_draw(stated), encoding=ENCODING_FLOAT32)
    batch = stub.Sample(native).batch
    assert given["sample"].tobytes() == batch.tensor.data
    assert given["sample"].shape == tuple(batch.tensor.shape)
    assert response.model_version == batch.checkpoint_sha256
    np.testing.assert_array_equal(given["category"], stated["category"])
    np.testing.assert_array_equal(given["style"], stated["style"])
    if model == "tiny-images":
        native.encoding = ENCODING_UINT8
        assert given["pixels"].tobytes() == stub.Sample(native).batch.tensor.data
    # Nothing was drawn.
    assert set(response.parameters) == {"execution_provider", "runtime_version"}


def test_a_category_needs_no_dimension_of_its_own(oip) -> None:
    flat = IMAGES | {"category": IMAGES["category"][:, 0].copy()}
    assert arrays_of(oip.ModelInfer(request("tiny-images", flat)))["sample"].tobytes() == (
        arrays_of(oip.ModelInfer(request("tiny-images", IMAGES)))["sample"].tobytes()
    )


@STATED
@pytest.mark.parametrize("left_out", [["category"], ["style"], ["noise"], ["style", "noise"], ["category", "noise"]])
def test_what_is_left_out_is_drawn_as_by_the_native_service(
    oip, stub, model: str, stated: Arrays, left_out: list[str]
) -> None:
    given = {name: array for name, array in stated.items() if name not in left_out}
    response = oip.ModelInfer(request(model, given, parameters=parameters(seed=2**64 - 1, first_index=130)))
    draw = native_draw(stated, seed=2**64 - 1, first_index=130)
    for code in draw.codes:
        if "category" in left_out:
            code.ClearField("category")
        if "style" in left_out:
            code.ClearField("style")
    if "noise" in left_out:
        draw.ClearField("noise")
    batch = stub.Sample(SampleRequest(model=model, draw=draw, encoding=ENCODING_FLOAT32)).batch
    arrays = arrays_of(response)
    assert arrays["sample"].tobytes() == batch.tensor.data
    assert arrays["category"][:, 0].tolist() == list(batch.categories)
    assert arrays["style"].tobytes() == batch.style.data
    assert response.parameters["seed"].uint64_param == 2**64 - 1
    assert response.parameters["first_index"].uint64_param == 130
    assert response.parameters["noise_algorithm"].string_param == batch.noise_algorithm


def test_a_count_and_a_label_are_enough(oip, stub) -> None:
    wanted = parameters(count=200, label="1", seed=5, first_index=3)
    arrays = arrays_of(oip.ModelInfer(ModelInferRequest(model_name="tiny-images", parameters=wanted)))
    draw = Draw(count=200, codes=[Code(label="1")], seed=5, first_index=3)
    batch = stub.Sample(SampleRequest(model="tiny-images", draw=draw)).batch
    assert arrays["pixels"].tobytes() == batch.tensor.data
    assert set(arrays["category"][:, 0].tolist()) == {1, 2}


def test_a_seed_that_the_server_chose_draws_the_same_again(oip) -> None:
    first, other = (oip.ModelInfer(request("tiny-images", {"style": IMAGES["style"]})) for _ in range(2))
    assert first.raw_output_contents != other.raw_output_contents
    again = request("tiny-images", {"style": IMAGES["style"]}, parameters={"seed": first.parameters["seed"]})
    assert oip.ModelInfer(again) == first


@pytest.mark.parametrize("names", [["pixels"], ["style", "sample"], ["category"]])
def test_only_the_outputs_asked_for_come_in_the_order_asked_for(oip, names: list[str]) -> None:
    every = arrays_of(oip.ModelInfer(request("tiny-images", IMAGES)))
    some = arrays_of(oip.ModelInfer(request("tiny-images", IMAGES, outputs=named(*names))))
    assert list(some) == names
    for name, array in some.items():
        np.testing.assert_array_equal(array, every[name])


@STATED
@pytest.mark.parametrize("typed", [False, True])
def test_inferred_codes_are_those_of_the_native_service(oip, stub, model: str, stated: Arrays, typed: bool) -> None:
    samples = arrays_of(oip.ModelInfer(request(model, stated)))["sample"]
    inferred = arrays_of(oip.ModelInfer(request(f"{model}-encoder", {"sample": samples}, typed=typed)))
    native = stub.InferCodes(InferCodesRequest(model=model, tensor=floats(samples)))
    assert list(inferred) == ["category_probability", "style_mean", "style_std"]
    for name, array in inferred.items():
        assert array.shape == tuple(getattr(native, name).shape)
        assert array.tobytes() == getattr(native, name).data
    std = request(f"{model}-encoder", {"sample": samples}, outputs=named("style_std"))
    assert list(arrays_of(oip.ModelInfer(std))) == ["style_std"]


def test_images_in_the_native_frame_are_read_too(oip, stub) -> None:
    images = np.random.default_rng(1).uniform(-1, 1, (5, 1, 6, 6)).astype("<f4")
    inferred = arrays_of(oip.ModelInfer(request("tiny-images-encoder", {"sample": images})))
    native = stub.InferCodes(InferCodesRequest(model="tiny-images", tensor=floats(images)))
    assert inferred["style_mean"].tobytes() == native.style_mean.data


def with_value(name: str, position: tuple[int, int], value: float) -> Arrays:
    array = IMAGES[name].copy()
    array[position] = value
    return IMAGES | {name: array}


def some(*names: str, rows: int = 2) -> Arrays:
    return {name: IMAGES[name][:rows] for name in names}


def changed(change: Callable[[ModelInferRequest], object], model: str = "tiny-images") -> ModelInferRequest:
    message = request(model, some("category", "style", "noise"))
    change(message)
    return message


def sample(*shape: int, value: float = 0, model: str = "tiny-images-encoder") -> ModelInferRequest:
    return request(model, {"sample": np.full(shape, value, "<f4")})


REFUSED = {
    "unknown model": (request("cifar", IMAGES), NOT_FOUND, ['"cifar"', '"tiny-images", "tiny-images-encoder"']),
    "unknown encoder": (request("cifar-encoder", {}), NOT_FOUND, ['"cifar-encoder"']),
    "unknown version": (request("tiny-images", IMAGES, model_version="1"), NOT_FOUND, ['not "1"', "tiny-images"]),
    "no encoder": (sample(1, 1, 8, 8, model="bare-encoder"), PRECONDITION, ["bare is served without its encoder"]),
    "long id": (request("tiny-images", IMAGES, id="ü" * 513), INVALID, ["1026 bytes", "1024"]),
    "nothing": (ModelInferRequest(model_name="tiny-images"), INVALID, ["0 samples", "count"]),
    "count 0": (request("tiny-images", {}, parameters=parameters(count=0)), INVALID, ["0 samples"]),
    "count too large": (
        request("tiny-images", {}, parameters=parameters(count=10**6)),
        INVALID,
        ["count is 1000000", "over the limit of", "first_index"],
    ),
    "codes alone do not lift the limit": (
        request("tiny-points", {}, parameters=parameters(count=10**6), outputs=named("style")),
        INVALID,
        ["count is 1000000"],
    ),
    "count against rows": (
        request("tiny-images", IMAGES, parameters=parameters(count=3)), INVALID, ["count is 3", "130 rows"],
    ),
    "category": (request("tiny-images", with_value("category", (3, 0), 4)), INVALID, ["category[3] is 4", "0 to 3"]),
    "negative category": (request("tiny-images", with_value("category", (3, 0), -1)), INVALID, ["category[3] is -1"]),
    "style": (request("tiny-images", with_value("style", (2, 1), 1.01)), INVALID, ["style[2][1] is 1.01", "[-1, 1]"]),
    "style NaN": (request("tiny-images", with_value("style", (0, 1), np.nan)), INVALID, ["style[0][1] is nan"]),
    "noise": (request("tiny-images", with_value("noise", (9, 2), -11)), INVALID, ["noise[9][2] is -11", "[-10, 10]"]),
    "noise infinite": (request("tiny-images", with_value("noise", (9, 2), np.inf)), INVALID, ["noise[9][2] is inf"]),
    "label": (
        request("tiny-images", {}, parameters=parameters(count=1, label="5")),
        PRECONDITION,
        ['label is "5"', '"0", "1", "7"'],
    ),
    "label and category": (
        request("tiny-images", IMAGES, parameters=parameters(label="7")), INVALID, ["label", "category"],
    ),
    "label as a number": (
        request("tiny-images", {}, parameters=parameters(count=1, label=7)), INVALID, ["string_param"],
    ),
    "seed as text": (request("tiny-images", IMAGES, parameters=parameters(seed="7")), INVALID, ["seed", "int64_param"]),
    "seed as a truth": (
        request("tiny-images", IMAGES, parameters={"seed": InferParameter(bool_param=True)}), INVALID, ["uint64_param"],
    ),
    "first index as a fraction": (
        request("tiny-images", IMAGES, parameters={"first_index": InferParameter(double_param=1)}),
        INVALID,
        ["first_index", "int64_param"],
    ),
    "count of no kind": (
        request("tiny-images", {}, parameters={"count": InferParameter()}), INVALID, ["count", "int64_param"],
    ),
    "negative seed": (
        request("tiny-images", IMAGES, parameters={"seed": InferParameter(int64_param=-1)}), INVALID, ["[0, 2^64)"],
    ),
    "beyond the last index": (
        request("tiny-images", some("style"), parameters=parameters(first_index=2**64 - 1)),
        INVALID,
        [str(2**64 + 1), "lower index"],
    ),
    "unknown parameter": (
        request("tiny-images", IMAGES, parameters=parameters(sede=1)), INVALID, ['"sede"', "seed, first_index"],
    ),
    "parameter of an encoder": (
        request("tiny-images-encoder", {}, parameters=parameters(seed=1)), INVALID, ['"seed"', "no parameters"],
    ),
    "unknown input": (request("tiny-images", {"z": IMAGES["noise"]}), INVALID, ['"z"', "category, style, noise"]),
    "input twice": (
        changed(lambda message: message.inputs[1].CopyFrom(message.inputs[0])), INVALID, ["category once more"],
    ),
    "shared memory": (
        changed(lambda message: message.inputs[0].parameters["shared_memory_region"].MergeFrom(InferParameter())),
        INVALID,
        ['"shared_memory_region"'],
    ),
    "classification": (
        request("tiny-images", IMAGES, outputs=[
            ModelInferRequest.InferRequestedOutputTensor(
                name="sample", parameters={"classification": InferParameter(int64_param=3)}
            )
        ]),
        INVALID,
        ["outputs[0].parameters", '"classification"'],
    ),
    "unknown output": (
        request("tiny-images", IMAGES, outputs=named("image")), INVALID, ['"image"', "sample, pixels, category, style"],
    ),
    "pixels of points": (request("tiny-points", POINTS, outputs=named("pixels")), INVALID, ['"pixels"']),
    "output twice": (request("tiny-images", IMAGES, outputs=named("style", "style")), INVALID, ["style once more"]),
    "datatype": (
        changed(lambda message: setattr(message.inputs[0], "datatype", "INT32")), INVALID, ["INT64", '"INT32"'],
    ),
    "shape": (
        request("tiny-images", {"style": np.zeros((4, 3), "<f4")}), INVALID, ["style", "[batch, 2]", "[4, 3]"],
    ),
    "negative shape": (
        changed(lambda message: message.inputs[1].shape.__setitem__(0, -2)), INVALID, ["[batch, 2]", "[-2, 2]"],
    ),
    "no rows": (request("tiny-images", {"style": np.zeros((0, 2), "<f4")}), INVALID, ["style has 0 rows"]),
    "many dimensions": (
        request("tiny-images", {"style": np.zeros((1,) * 32, "<f4")}), INVALID, ["32 dimensions"],
    ),
    "huge rows": (
        changed(lambda message: message.inputs[1].shape.__setitem__(0, 2**62)), INVALID, ["over the limit of"],
    ),
    "different rows": (
        request("tiny-images", some("category", rows=3) | some("style", rows=2)),
        INVALID,
        ["3 of category, 2 of style"],
    ),
    "short content": (
        changed(lambda message: message.raw_input_contents.__setitem__(2, b"abc")), INVALID, ["24 bytes", "has 3"],
    ),
    "content missing": (changed(lambda message: message.raw_input_contents.pop()), INVALID, ["2 tensors", "3 inputs"]),
    "no content": (changed(lambda message: message.ClearField("raw_input_contents")), INVALID, ["2 elements", "has 0"]),
    "both contents": (
        changed(lambda message: message.inputs[0].contents.int64_contents.append(1)), INVALID, ["both contents"],
    ),
    "wrong contents": (
        request("tiny-images", {}, inputs=[
            ModelInferRequest.InferInputTensor(
                name="style", datatype="FP32", shape=[1, 2], contents=InferTensorContents(fp64_contents=[0, 0])
            )
        ]),
        INVALID,
        ["fp32_contents", "2 elsewhere"],
    ),
    "contents of two kinds": (
        request("tiny-images", {}, inputs=[
            ModelInferRequest.InferInputTensor(
                name="style", datatype="FP32", shape=[1, 2],
                contents=InferTensorContents(fp32_contents=[0, 0], int_contents=[0]),
            )
        ]),
        INVALID,
        ["has 2 there and 1 elsewhere"],
    ),
    "no sample": (request("tiny-images-encoder", {}), INVALID, ["sample is missing"]),
    "sample size": (sample(3, 1, 7, 7), INVALID, ["[batch, 1, 8, 8] or [batch, 1, 6, 6]", "[3, 1, 7, 7]"]),
    "sample range": (sample(3, 1, 8, 8, value=1.01), INVALID, ["1.01", "[-1, 1]", "scale"]),
    "sample NaN": (sample(3, 1, 8, 8, value=np.nan), INVALID, ["not finite"]),
    "far point": (sample(3, 2, value=2e6, model="tiny-points-encoder"), INVALID, ["2e+06", "[-1e+06, 1e+06]"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_refused_with_what_is_wrong(oip, refusal: Callable, case: str) -> None:
    message, expected, words = REFUSED[case]
    code, details = refusal(oip.ModelInfer, message)
    assert code == expected, details
    for word in words:
        assert word in details


def details(error: grpc.RpcError, kind: type[Message]) -> Message:
    found = kind()
    assert any(detail.Unpack(found) for detail in rpc_status.from_call(error).details)
    return found


def test_all_that_is_wrong_is_told_with_its_place(oip) -> None:
    message = request("tiny-images", with_value("category", (3, 0), 9), parameters=parameters(count=3, seed="7"))
    message.raw_input_contents[2] = np.full_like(IMAGES["noise"], 11).tobytes()
    with pytest.raises(grpc.RpcError) as caught:
        oip.ModelInfer(message)
    violations = details(caught.value, BadRequest).field_violations
    assert [(violation.field, violation.reason) for violation in violations] == [
        ('parameters["count"]', "SHAPE_MISMATCH"),
        ('parameters["seed"]', "VALUE_OUT_OF_RANGE"),
        ("inputs[0]", "VALUE_OUT_OF_RANGE"),
        ("inputs[2]", "VALUE_OUT_OF_RANGE"),
    ]


def test_what_does_not_fit_in_the_queue_is_refused_with_a_time_to_wait(
    start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"), queue_rows=64)
    with pytest.raises(grpc.RpcError) as caught:
        GRPCInferenceServiceStub(server.channel).ModelInfer(request("tiny-images", IMAGES))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(caught.value, ErrorInfo).reason == "QUEUE_FULL"
    assert details(caught.value, RetryInfo).retry_delay.ToMilliseconds() > 0


def test_readiness_follows_health(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"))
    oip = GRPCInferenceServiceStub(server.channel)
    assert oip.ServerReady(ServerReadyRequest()).ready

    async def stop_serving() -> None:
        server.server.health.not_serving()

    asyncio.run_coroutine_threadsafe(stop_serving(), server.loop).result(LIMIT)
    assert oip.ServerLive(ServerLiveRequest()).live
    assert not oip.ServerReady(ServerReadyRequest()).ready
    assert not oip.ModelReady(ModelReadyRequest(name="tiny-images")).ready


def test_who_shares_a_batch_changes_no_byte(oip, stub) -> None:
    alone = [
        request("tiny-images", {name: array[row : row + 1] for name, array in IMAGES.items()}) for row in range(48)
    ]
    calls = [oip.ModelInfer.future(message) for message in alone]
    stub.Sample(SampleRequest(model="tiny-images", draw=Draw(count=100)))
    together = arrays_of(oip.ModelInfer(request("tiny-images", IMAGES)))
    for name in ("sample", "pixels"):
        rows = b"".join(arrays_of(call.result(LIMIT))[name].tobytes() for call in calls)
        assert rows == together[name][:48].tobytes()


def test_no_model_has_the_name_of_anothers_encoder(load_file: Callable, schema_1: Path) -> None:
    models = [load_file(schema_1 / "gen.onnx", name=name) for name in ("digits", "digits-encoder")]
    with pytest.raises(StartupError, match=r"digits-encoder is what .* the encoder of digits: name either"):
        Registry(models)


def test_metadata_and_configuration_of_an_unknown_model_are_not_found(oip, refusal: Callable) -> None:
    for method, message in [
        (oip.ModelMetadata, ModelMetadataRequest(name="cifar")),
        (oip.ModelConfig, ModelConfigRequest(name="cifar")),
    ]:
        code, details = refusal(method, message)
        assert code == NOT_FOUND
        assert '"cifar"' in details


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "SystemSharedMemoryRegister", "ModelStreamInfer"])
def test_what_other_servers_offer_beyond_is_refused_by_name(running, refusal: Callable, method: str) -> None:
    call = running.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    code, details = refusal(call, b"")
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert f'"{method}"' in details
    assert "ModelInfer" in details


NAMES_OF_ANYTHING = (
    st.sampled_from(["category", "style", "noise", "sample", "pixels", "seed", "count", "first_index", "label", ""])
    | st.text()
)
INTEGERS = st.integers(-2, 70) | st.integers(-(2**63), 2**63 - 1)
UNSIGNED = st.integers(0, 70) | st.integers(0, 2**64 - 1)
PARAMETERS = st.one_of(
    st.builds(InferParameter),
    st.builds(InferParameter, bool_param=st.booleans()),
    st.builds(InferParameter, int64_param=INTEGERS),
    st.builds(InferParameter, uint64_param=UNSIGNED),
    st.builds(InferParameter, double_param=st.floats()),
    st.builds(InferParameter, string_param=st.sampled_from(["0", "1", "7", "5"]) | st.text()),
)
ELEMENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": INTEGERS,
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": UNSIGNED,
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=9),
}
IDS = st.text() | st.sampled_from(["a" * 1024, "ü" * 512, "ü" * 513, "\n\x00"])
PLACE = re.compile(
    r"id|parameters(\[.*\])?|inputs(\[\d+\](\.(name|datatype|shape|contents|parameters))?)?"
    r"|outputs\[\d+\]\.(name|parameters)|raw_input_contents(\[\d+\])?"
)
VERSIONS = st.sampled_from(["", "1", "latest"]) | st.text()


TWO_POINTS = {name: array[:2] for name, array in POINTS.items()}
SOUND = [
    *(request("tiny-images", some("category", "style", "noise"), typed=typed) for typed in (False, True)),
    *(request("tiny-points", TWO_POINTS, typed=typed) for typed in (False, True)),
    request("bare", {}, parameters=parameters(count=3, seed=1), outputs=named("pixels")),
    sample(2, 1, 8, 8),
    sample(2, 2, model="tiny-points-encoder"),
]


@st.composite
def spoilt(draw: st.DrawFn) -> ModelInferRequest:
    """A sound request with up to three parts set to anything."""
    message = ModelInferRequest()
    message.CopyFrom(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 3))):
        tensor = draw(st.sampled_from(list(message.inputs) or [message.inputs.add()]))
        match draw(st.integers(0, 12)):
            case 0:
                tensor.name = draw(NAMES_OF_ANYTHING)
            case 1:
                tensor.datatype = draw(st.sampled_from(["INT64", "FP32", "UINT8", "BYTES", ""]) | st.text())
            case 2:
                tensor.shape[:] = draw(st.lists(INTEGERS, max_size=12))
            case 3:
                name = draw(st.sampled_from(list(ELEMENTS)))
                getattr(tensor.contents, name).extend(draw(st.lists(ELEMENTS[name], max_size=9)))
            case 4:
                tensor.contents.Clear()
            case 5:
                message.raw_input_contents.append(draw(st.binary(max_size=99)))
            case 6:
                message.parameters[draw(st.sampled_from(["seed", "count", "label"]) | NAMES_OF_ANYTHING)].CopyFrom(
                    draw(PARAMETERS)
                )
            case 7:
                message.outputs.add(name=draw(NAMES_OF_ANYTHING))
            case 8:
                message.inputs.remove(tensor)
            case 9:
                message.id = draw(IDS)
            case 10:
                message.model_name = draw(
                    st.sampled_from(["", "bare", "-encoder", "tiny-images-encoder-encoder"]) | IDS
                )
            case 11:
                message.model_version = draw(VERSIONS)
            case 12:
                outputs = list(message.outputs) or [
                    message.outputs.add(name=draw(st.sampled_from(["sample", "style"])))
                ]
                spoiled = draw(st.sampled_from([tensor, *outputs]))
                spoiled.parameters[draw(st.text())].CopyFrom(draw(PARAMETERS))
    return message


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=spoilt())
def test_whatever_is_asked_is_answered_or_refused(oip, message: ModelInferRequest) -> None:
    call = oip.ModelInfer.future(message, timeout=LIMIT)
    error = call.exception()
    if error is None:
        reply = call.result()
        assert reply.id == message.id
        assert len(reply.id.encode()) <= 1024
        assert reply.model_name == (message.model_name or "tiny-images")
        assert message.model_version in ("", reply.model_version)
        assert [output.name for output in reply.outputs][: len(message.outputs)] == [
            output.name for output in message.outputs
        ]
        # What is not understood is not passed over.
        assert not any(tensor.parameters for tensor in [*message.inputs, *message.outputs])
        assert set(message.parameters) <= {"count", "seed", "first_index", "label"}
        return
    assert error.code() in (INVALID, PRECONDITION, NOT_FOUND), (error.details(), message)
    assert 0 < len(error.details()) < 1000
    assert error.details().isprintable()
    assert details(error, ErrorInfo).reason
    if error.code() == INVALID:
        fields = [violation.field for violation in details(error, BadRequest).field_violations]
        assert fields
        assert all(PLACE.fullmatch(field) for field in fields), fields
