"""grpc.health.v1 and server reflection, as stock tools use them."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from grpc_status import rpc_status
from infosink.serving.limits import BATCH_SAMPLES
from infosink.serving.runtime.admission import STREAMS
from infosink.serving.server import REFLECTIONS, WATCHES
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    Draw,
    GetModelRequest,
    InferCodesRequest,
    ListModelsRequest,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.tensor_pb2 import DATA_TYPE_UINT8, Tensor

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "infosink.v1.SamplingService", "tiny-images", "tiny-points", "bare"])
def test_every_name_is_serving(running, name: str) -> None:
    assert HealthStub(running.channel).Check(HealthCheckRequest(service=name)).status == SERVING


def test_an_unknown_name_is_not_found(running, refusal: Callable) -> None:
    code, _ = refusal(HealthStub(running.channel).Check, HealthCheckRequest(service="cifar"))
    assert code == grpc.StatusCode.NOT_FOUND


def test_watches_see_the_server_drain_and_end(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"))
    with grpc.insecure_channel(server.address) as channel:
        names = ["", "infosink.v1.SamplingService", "tiny-images"]
        watches = [HealthStub(channel).Watch(HealthCheckRequest(service=name)) for name in names]
        left = HealthStub(channel).Watch(HealthCheckRequest())
        assert [next(watch).status for watch in [*watches, left]] == [SERVING] * 4
        left.cancel()
        # Watches alone do not keep the server: were they not ended, this would take the whole grace.
        ended = server.drain(3600)
        for watch in watches:
            assert [response.status for response in watch] == [NOT_SERVING]
            assert watch.code() == grpc.StatusCode.OK
        assert ended.wait(30)


def test_a_watch_of_an_unknown_name_stays_open_and_says_so(running) -> None:
    watch = HealthStub(running.channel).Watch(HealthCheckRequest(service="cifar"))
    assert next(watch).status == HealthCheckResponse.SERVICE_UNKNOWN
    assert watch.is_active()
    watch.cancel()


def test_an_open_reflection_stream_does_not_keep_the_server_from_draining(
    start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"))
    asked = threading.Event()
    with grpc.insecure_channel(server.address) as channel:
        streams = [ServerReflectionStub(channel).ServerReflectionInfo(ask_and_wait(asked)) for _ in range(2)]
        assert [len(next(one).list_services_response.service) for one in streams] == [4] * 2
        # Were they not ended, this would take the whole grace.
        assert server.drain(3600).wait(30)
        for one in streams:
            with pytest.raises(grpc.RpcError) as caught:
                next(one)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        asked.set()


def ask_and_wait(asked: threading.Event) -> Iterator[ServerReflectionRequest]:
    yield ServerReflectionRequest(list_services="")
    asked.wait()


def test_open_calls_leave_room_for_others(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    server = start_server(
        load_file(schema_1 / "gen.onnx"), load_file(schema_1 / "points-gen.onnx"), queue_rows=8 * BATCH_SAMPLES
    )
    stub, health, reflection = server.stub, HealthStub(server.channel), ServerReflectionStub(server.channel)
    asked = threading.Event()
    points = stub.GetModel(GetModelRequest(model="tiny-points")).served_model
    # Hundreds of thousands of points take longer than all else here.
    drawing = SampleRequest(model="tiny-points", draw=Draw(count=points.limits.unary_float32_samples))
    # Nobody reads so many images, so that the server waits to send them.
    streaming = StreamSamplesRequest(draw=Draw(count=1_000_000), encoding=ENCODING_FLOAT32)

    def reflect() -> grpc.Call:
        return reflection.ServerReflectionInfo(ask_and_wait(asked))

    calls = []
    for kind, limit, start in [
        ("health watches", WATCHES, lambda: health.Watch(HealthCheckRequest())),
        ("reflection streams", REFLECTIONS, reflect),
        ("StreamSamples calls", STREAMS, lambda: stub.StreamSamples(streaming)),
    ]:
        started = [start() for _ in range(limit)]
        for call in started:
            next(call)
        with pytest.raises(grpc.RpcError) as caught:
            next(start())
        assert_refused(caught.value, f"{limit} {kind} are open, as many as this server allows at once: make fewer")
        calls += started

    ended: queue.Queue[grpc.Future] = queue.Queue()
    draws = [stub.Sample.future(drawing) for _ in range(6)]
    for draw in draws:
        draw.add_done_callback(ended.put)
    # Of each, two chunks of 64 samples wait at once.
    refused = [ended.get(timeout=60) for _ in range(2)]
    for draw in refused:
        assert_refused(draw.exception(), "512 samples are under way")
    calls += [draw for draw in draws if draw not in refused]
    images = InferCodesRequest(tensor=Tensor(data_type=DATA_TYPE_UINT8, shape=[1, 8, 8, 1], data=bytes(64)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.InferCodes(images)
    assert_refused(caught.value, "512 samples are under way")

    assert health.Check(HealthCheckRequest(), timeout=60).status == SERVING
    assert stub.GetModel(GetModelRequest(model="tiny-points"), timeout=60).served_model == points
    assert len(stub.ListModels(ListModelsRequest(), timeout=60).served_models) == 2
    assert all(call.is_active() for call in calls)
    asked.set()
    for call in calls:
        call.cancel()


def assert_refused(error: grpc.RpcError, words: str) -> None:
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details().startswith(words)
    assert "again later" in error.details()


def test_services_are_reflected(running) -> None:
    def ask(request: ServerReflectionRequest):
        return next(ServerReflectionStub(running.channel).ServerReflectionInfo(iter([request])))

    listed = ask(ServerReflectionRequest(list_services="")).list_services_response.service
    assert {service.name for service in listed} == {
        "infosink.v1.SamplingService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    files = ask(ServerReflectionRequest(file_containing_symbol="infosink.v1.SamplingService"))
    file = FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
    methods = [method.name for method in file.service[0].method]
    assert methods == ["GetModel", "ListModels", "Sample", "StreamSamples", "InferCodes"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_client_without_protos_finds_what_to_call_and_calls_it(running, version: str) -> None:
    reflect = running.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )

    def ask(request: ServerReflectionRequest) -> ServerReflectionResponse:
        return next(reflect(iter([request])))

    pool, known = DescriptorPool(), set()

    def learn(symbol: str) -> None:
        asked = ask(ServerReflectionRequest(file_containing_symbol=symbol))
        files = [FileDescriptorProto.FromString(file) for file in asked.file_descriptor_response.file_descriptor_proto]
        assert files, symbol
        # A file comes with those it builds upon, after it.
        for file in reversed(files):
            if file.name not in known:
                pool.Add(file)
                known.add(file.name)

    for service in ask(ServerReflectionRequest(list_services="")).list_services_response.service:
        learn(service.name)

    def call(service: str, method: str, **fields: object) -> Message:
        described = pool.FindServiceByName(service).methods_by_name[method]
        make = running.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return make(GetMessageClass(described.input_type)(**fields), timeout=60)

    drawn = call("infosink.v1.SamplingService", "Sample", model="tiny-points", draw={"count": 2, "seed": 1}).batch
    inferred = call(
        "inference.GRPCInferenceService",
        "ModelInfer",
        model_name="tiny-points",
        parameters={"count": {"int64_param": 2}, "seed": {"int64_param": 1}},
    )
    assert inferred.raw_output_contents[0] == drawn.tensor.data
    # What a refusal holds is described too.
    with pytest.raises(grpc.RpcError) as caught:
        call("infosink.v1.SamplingService", "Sample")
    for detail in rpc_status.from_call(caught.value).details:
        learn(detail.TypeName())
        message = GetMessageClass(pool.FindMessageTypeByName(detail.TypeName())).FromString(detail.value)
        assert message.ListFields()
