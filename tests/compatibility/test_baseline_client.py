"""A client built against the baseline of the wire contract is answered as it was promised."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import infosink.v1.sampling_service_pb2 as now
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

SCHEMA_1 = Path(__file__).parent / "schema-1"
BASELINE = Path(__file__).parents[2] / "protos" / "baseline.binpb"
SERVICE = "infosink.v1.SamplingService"
LIMIT = 60


class OldClient:
    """What the baseline's descriptors give: its messages and its methods, and nothing of today's modules."""

    def __init__(self, channel: grpc.Channel) -> None:
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(BASELINE.read_bytes()).file:
            pool.Add(file)
        self._pool = pool
        self._channel = channel

    def message(self, name: str, **fields: object) -> Message:
        return GetMessageClass(self._pool.FindMessageTypeByName(f"infosink.v1.{name}"))(**fields)

    def method(self, name: str) -> Callable[..., object]:
        method = self._pool.FindServiceByName(SERVICE).methods_by_name[name]
        open_method = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        return open_method(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    def call(self, name: str, request: Message | None = None) -> Message:
        return self.method(name)(request or self.message(f"{name}Request"), timeout=LIMIT)


@pytest.fixture(scope="module")
def old_client() -> Iterator[OldClient]:
    arguments = ["--model", SCHEMA_1 / "gen.onnx", "--model", SCHEMA_1 / "points-gen.onnx", "--port", "0"]
    command = [Path(sys.executable).with_name("infosink-serve"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split(" on ")[1].split(",")[0]
        with grpc.insecure_channel(address) as channel:
            yield OldClient(channel)
        process.terminate()


def assert_says_no_less(old: Message, method: str) -> None:
    """What the old client read is what today's contract says: each of its fields means what it meant."""
    new = getattr(now, f"{method}Response").FromString(old.SerializeToString())
    for name, value in json_format.MessageToDict(old).items():
        assert holds(json_format.MessageToDict(new)[name], value), name


def holds(new: object, old: object) -> bool:
    if isinstance(old, dict):
        return all(name in new and holds(new[name], value) for name, value in old.items())
    if isinstance(old, list):
        return len(new) == len(old) and all(map(holds, new, old))
    return new == old


def test_the_baseline_is_of_an_older_contract(old_client: OldClient) -> None:
    assert "card" not in old_client.message("GetModelResponse").DESCRIPTOR.fields_by_name


def test_models_are_described(old_client: OldClient) -> None:
    models = old_client.call("ListModels")
    assert [one.model.name for one in models.served_models] == ["tiny-images", "tiny-points"]
    model = old_client.call("GetModel", old_client.message("GetModelRequest", model="tiny-images"))
    assert model.served_model == models.served_models[0]
    served = model.served_model
    assert [category.label for category in served.model.latent_space.categories] == ["0", "1", "1", "7"]
    assert served.model.sample_space.image.height == 8
    assert served.infers_codes
    assert served.limits.unary_float32_samples > 0
    assert served.limits.unary_png_samples > 0
    for method, reply in (("ListModels", models), ("GetModel", model)):
        assert_says_no_less(reply, method)


def sample_request(client: OldClient, kind: str = "Sample", encoding: int = 0, **draw: object) -> Message:
    return client.message(f"{kind}Request", draw=client.message("Draw", **draw), encoding=encoding)


def values(batch: Message) -> np.ndarray:
    assert batch.tensor.data_type == 2
    return np.frombuffer(batch.tensor.data, "<f4").reshape(tuple(batch.tensor.shape))


def test_samples_are_drawn_by_code_and_read_back(old_client: OldClient) -> None:
    codes = [old_client.message("Code", label="7", style=[0.5, -0.3]), old_client.message("Code", category=1)]
    noise = old_client.message("Noise", shared_index=3)
    request = sample_request(old_client, encoding=2, count=6, seed=5, codes=codes, noise=noise)
    reply = old_client.call("Sample", request)
    batch = reply.batch
    assert list(batch.labels) == ["7", "1"] * 3
    assert (batch.seed, batch.shared_noise_index) == (5, 3)
    assert values(batch).shape == (6, 1, 8, 8)
    again = sample_request(old_client, encoding=2, count=3, first_index=3, seed=5, codes=codes, noise=noise)
    assert values(old_client.call("Sample", again).batch).tobytes() == values(batch)[3:].tobytes()
    inferred = old_client.call("InferCodes", old_client.message("InferCodesRequest", tensor=batch.tensor))
    assert list(inferred.categories) == list(batch.categories)
    assert list(inferred.style_std.shape) == [6, 2]
    assert_says_no_less(reply, "Sample")
    assert_says_no_less(inferred, "InferCodes")


@pytest.mark.parametrize(("encoding", "field"), [(0, "tensor"), (1, "tensor"), (2, "tensor"), (3, "png")])
def test_every_encoding_of_the_baseline_is_spoken(old_client: OldClient, encoding: int, field: str) -> None:
    batch = old_client.call("Sample", sample_request(old_client, encoding=encoding, count=2, seed=1)).batch
    assert batch.WhichOneof("samples") == field
    if field == "png":
        assert all(image.startswith(b"\x89PNG") for image in batch.png.images)


def test_a_stream_holds_the_same_samples(old_client: OldClient) -> None:
    streaming = sample_request(old_client, "StreamSamples", encoding=2, count=150, seed=2)
    replies = list(old_client.call("StreamSamples", streaming))
    assert all(len(reply.batch.categories) <= 64 for reply in replies)
    whole = old_client.call("Sample", sample_request(old_client, encoding=2, count=150, seed=2)).batch
    assert b"".join(values(reply.batch).tobytes() for reply in replies) == values(whole).tobytes()
    assert_says_no_less(replies[0], "StreamSamples")


def test_refusals_bear_the_codes_they_bore(old_client: OldClient) -> None:
    for expected, method, request in [
        ("NOT_FOUND", "GetModel", old_client.message("GetModelRequest", model="cifar")),
        ("INVALID_ARGUMENT", "Sample", sample_request(old_client, count=0)),
        ("INVALID_ARGUMENT", "InferCodes", old_client.message("InferCodesRequest")),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            old_client.call(method, request)
        assert caught.value.code().name == expected
        assert caught.value.details()
