"""The client against a server that gets its replies wrong, and against one that is no infosink server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from infosink.clients import Client, MalformedReplyError, RequestRefusedError
from infosink.clients.wire import from_tensor, to_tensor
from infosink.v1 import model_pb2, sampling_service_pb2_grpc, tensor_pb2
from infosink.v1 import sampling_service_pb2 as v1

CHECKPOINT = "0" * 64


class Careless(sampling_service_pb2_grpc.SamplingServiceServicer):
    """Serves points at the origin, right but for what `spoil` does to each batch."""

    def __init__(self, spoil: Callable[[v1.SampleBatch], None]) -> None:
        self.spoil = spoil

    def GetModel(self, request, context):  # noqa: N802
        space = model_pb2.LatentSpace(
            categories=[model_pb2.Category(label="0")], styles=[model_pb2.Style(name="style 1")]
        )
        points = model_pb2.SampleSpace(point=model_pb2.PointSpace(dimensions=2))
        model = model_pb2.Model(name="m", latent_space=space, sample_space=points, checkpoint_sha256=CHECKPOINT)
        limits = v1.Limits(unary_float32_samples=10, stream_samples=10, codes=10, inferred_samples=10)
        return v1.GetModelResponse(served_model=v1.ServedModel(model=model, limits=limits))

    def Sample(self, request, context):  # noqa: N802
        return v1.SampleResponse(batch=self.batch(request.draw))

    def StreamSamples(self, request, context):  # noqa: N802
        yield v1.StreamSamplesResponse(batch=self.batch(request.draw))

    def batch(self, draw: v1.Draw) -> v1.SampleBatch:
        batch = v1.SampleBatch(
            model="m",
            checkpoint_sha256=CHECKPOINT,
            first_index=draw.first_index,
            categories=[0] * draw.count,
            labels=["0"] * draw.count,
            style=to_tensor(np.zeros((draw.count, 1))),
            tensor=to_tensor(np.zeros((draw.count, 2))),
        )
        self.spoil(batch)
        return batch


@contextmanager
def serving(add: Callable[[grpc.Server], None]) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


def set_fields(**fields: object) -> Callable[[v1.SampleBatch], None]:
    def spoil(batch: v1.SampleBatch) -> None:
        for name in fields:
            batch.ClearField(name)
        batch.MergeFrom(v1.SampleBatch(**fields))

    return spoil


def one_less(batch: v1.SampleBatch) -> None:
    count = len(batch.categories) - 1
    for values in (batch.categories, batch.labels):
        del values[count:]
    batch.style.CopyFrom(to_tensor(np.zeros((count, 1))))
    batch.tensor.CopyFrom(to_tensor(np.zeros((count, 2))))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (set_fields(first_index=7), "index 7"),
        (set_fields(categories=[0]), "1 categories"),
        (set_fields(labels=["0"]), "1 labels"),
        (set_fields(tensor=to_tensor(np.zeros((3, 3)))), r"\[3, 3\]"),
        (set_fields(style=to_tensor(np.zeros((3, 0)))), r"\[3, 0\]"),
        (set_fields(style=tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, data=bytes(4))), r"shape \[\]"),
        (set_fields(png=v1.PngImages(images=[b""] * 3)), "element type 0"),
        (
            set_fields(tensor=tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3, 2], data=bytes(20))),
            "20 bytes of samples; .* needs 24",
        ),
        (set_fields(checkpoint_sha256="1" * 64), "changed from checkpoint 000000000000 to 111111111111"),
        (one_less, "3 samples were asked for, .* holds 2"),
    ],
)
def test_a_reply_that_makes_no_sense_is_named(spoil: Callable[[v1.SampleBatch], None], words: str) -> None:
    def add(server: grpc.Server) -> None:
        sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(Careless(spoil), server)

    with serving(add) as address, Client(address) as client:
        with pytest.raises(MalformedReplyError, match=words):
            client.sample(3)
        with pytest.raises(MalformedReplyError, match=words):
            list(client.stream(3))


def test_another_server_is_told_from_infosinks() -> None:
    with serving(lambda _: None) as address, Client(address) as client:
        with pytest.raises(RequestRefusedError, match=rf"{address} does not speak infosink\.v1") as refusal:
            client.models()
        assert refusal.value.code == "UNIMPLEMENTED"


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_the_wire_is_little_endian(byte_order: str) -> None:
    tensor = to_tensor(np.array([[1.0, -2.5]], f"{byte_order}f4"))
    assert tensor.data == bytes.fromhex("0000803f000020c0")
    array = from_tensor(tensor, "samples")
    assert array.tolist() == [[1.0, -2.5]]
    assert array.dtype == np.float32
    assert array.flags.writeable
