"""grpc.health.v1 and server reflection, as stock tools use them."""

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from infosink.serving.server import Server

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "infosink.v1.SamplingService", "tiny-images", "tiny-points", "bare"])
def test_every_name_is_serving(running, name: str) -> None:
    assert HealthStub(running.channel).Check(HealthCheckRequest(service=name)).status == SERVING


def test_an_unknown_name_is_not_found(running, refusal: Callable) -> None:
    code, _ = refusal(HealthStub(running.channel).Check, HealthCheckRequest(service="cifar"))
    assert code == grpc.StatusCode.NOT_FOUND


def test_watches_see_the_server_drain_and_end(load_file: Callable, schema_1: Path) -> None:
    server = Server([load_file(schema_1 / "gen.onnx")], "127.0.0.1", 0)
    server.start()
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


def test_open_calls_leave_room_for_others(start_server: Callable, load_file: Callable, schema_1: Path) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"))
    health = HealthStub(server.channel)
    watches = [health.Watch(HealthCheckRequest()) for _ in range(8)]
    assert [next(watch).status for watch in watches] == [SERVING] * 8
    with pytest.raises(grpc.RpcError) as caught:
        next(health.Watch(HealthCheckRequest()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "8 health watches are open" in caught.value.details()

    asked = threading.Event()

    def ask_and_wait():
        yield ServerReflectionRequest(list_services="")
        asked.wait()

    conversations = [ServerReflectionStub(server.channel).ServerReflectionInfo(ask_and_wait()) for _ in range(4)]
    assert [len(next(one).list_services_response.service) for one in conversations] == [3] * 4
    with pytest.raises(grpc.RpcError) as caught:
        next(ServerReflectionStub(server.channel).ServerReflectionInfo(ask_and_wait()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert health.Check(HealthCheckRequest()).status == SERVING
    asked.set()
    for watch in watches:
        watch.cancel()


def test_services_are_reflected(running) -> None:
    def ask(request: ServerReflectionRequest):
        return next(ServerReflectionStub(running.channel).ServerReflectionInfo(iter([request])))

    listed = ask(ServerReflectionRequest(list_services="")).list_services_response.service
    assert {service.name for service in listed} == {
        "infosink.v1.SamplingService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    files = ask(ServerReflectionRequest(file_containing_symbol="infosink.v1.SamplingService"))
    file = FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
    methods = [method.name for method in file.service[0].method]
    assert methods == ["GetModel", "ListModels", "Sample", "StreamSamples", "InferCodes"]
