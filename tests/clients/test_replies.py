"""The client against a server that gets its replies wrong, and against one that is no infosink server."""

import re
from collections.abc import Callable
from itertools import repeat

import grpc
import numpy as np
import pytest
from infosink.clients import Client, Code, MalformedReplyError, RequestRefusedError, ServerFailedError
from infosink.clients.wire import from_tensor, to_tensor
from infosink.v1 import sampling_service_pb2 as v1
from infosink.v1 import tensor_pb2

Start = Callable[..., str]
FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32


def fields(message: object, **values: object) -> None:
    """Replaces fields of a message."""
    for name in values:
        message.ClearField(name)
    message.MergeFrom(type(message)(**values))


def setting(**values: object) -> Callable[[object], None]:
    return lambda message: fields(message, **values)


def points(served: v1.ServedModel) -> None:
    served.model.sample_space.point.dimensions = 2


def one_less(batch: v1.SampleBatch) -> None:
    count = len(batch.categories) - 1
    for values in (batch.categories, batch.labels):
        del values[count:]
    batch.style.CopyFrom(to_tensor(np.zeros((count, 1))))
    batch.tensor.CopyFrom(to_tensor(np.zeros((count, 2))))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (setting(first_index=7), "index 7"),
        (setting(seed=7), "the seed 7, not of 3"),
        (setting(shared_noise_index=7), "another noise"),
        (setting(noise_given=True), "another noise"),
        (setting(categories=[0]), r"shape \[3, 2\]; its model needs \[1, 2\]"),
        (setting(labels=["0"]), "1 labels"),
        (setting(labels=["0", "1", "0"]), "category 0 another label"),
        (setting(categories=[0, 0, 2]), "category 2; its model has 2"),
        (setting(tensor=to_tensor(np.zeros((3, 3)))), r"\[3, 3\]"),
        (setting(tensor=to_tensor(np.zeros((3, 2), np.uint8))), "element type 1; its model needs 2"),
        (setting(tensor=to_tensor(np.array([[0, np.nan]] * 3))), "samples that are not all finite"),
        (setting(style=to_tensor(np.zeros((3, 0)))), r"\[3, 0\]"),
        (setting(style=to_tensor(np.full((3, 1), 1.5))), "between -1 and 1"),
        (setting(style=tensor_pb2.Tensor(data_type=FLOAT32, data=bytes(4))), r"shape \[\]"),
        (
            setting(style=tensor_pb2.Tensor(data_type=FLOAT32, shape=[1] * 99, data=bytes(4))),
            r"shape \[1, 1, 1, 1, 1\] and more;",
        ),
        (setting(png=v1.PngImages(images=[b""] * 3)), "element type 0"),
        (
            setting(tensor=tensor_pb2.Tensor(data_type=FLOAT32, shape=[3, 2], data=bytes(20))),
            "20 bytes of samples; .* needs 24",
        ),
        (setting(checkpoint_sha256="1" * 64), "changed from checkpoint 000000000000 to 111111111111"),
        (setting(checkpoint_sha256="\x1b[31m"), r"to  \[31m meanwhile"),
        (one_less, "3 samples were asked for, .* holds 2"),
    ],
)
def test_a_reply_that_makes_no_sense_is_named(
    careless: Start, spoil: Callable[[v1.SampleBatch], None], words: str
) -> None:
    with Client(careless(describe=points, spoil=spoil)) as client:
        with pytest.raises(MalformedReplyError, match=words):
            client.sample(3, seed=3)
        with pytest.raises(MalformedReplyError, match=words):
            list(client.stream(3, seed=3))


def test_images_are_bytes_in_replies_too(careless: Start) -> None:
    address = careless(spoil=setting(tensor=to_tensor(np.zeros((3, 8, 8, 1)))))
    with Client(address) as client, pytest.raises(MalformedReplyError, match="element type 2; its model needs 1"):
        client.sample(3)


def test_shared_noise_that_the_server_did_not_share_is_named(careless: Start) -> None:
    def forget(batch: v1.SampleBatch) -> None:
        batch.ClearField("noise_source")

    with Client(careless(spoil=forget)) as client, pytest.raises(MalformedReplyError, match="another noise"):
        client.sample(3, shared_noise_index=1)


@pytest.mark.parametrize(("spoil", "words"), [(lambda _: None, "batch of 3"), (setting(categories=[]), "batch of 0")])
def test_a_stream_without_end_is_left_at_once(
    careless: Start, spoil: Callable[[v1.SampleBatch], None], words: str
) -> None:
    def empty(batch: v1.SampleBatch) -> None:
        spoil(batch)
        if not batch.categories:
            fields(batch, labels=[], style=to_tensor(np.zeros((0, 1))), tensor=to_tensor(np.zeros((0, 2))))

    address = careless(describe=points, spoil=empty, batches=lambda: repeat(None))
    with Client(address, timeout=20) as client, pytest.raises(MalformedReplyError, match=words):
        list(client.stream(3))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (setting(categories=[0]), "1 categories of 3 samples"),
        (setting(categories=[0, 0, 9]), "category 9"),
        (setting(category_probability=to_tensor(np.full((3, 2), np.nan))), "probabilities that are not all finite"),
        (setting(category_probability=to_tensor(np.full((3, 2), 1e9))), "between"),
        (setting(style_mean=to_tensor(np.full((3, 1), np.inf))), "style means"),
        (setting(style_std=to_tensor(np.full((3, 1), -1))), "standard deviations"),
    ],
)
def test_codes_that_make_no_sense_are_named(
    careless: Start, spoil: Callable[[v1.InferCodesResponse], None], words: str
) -> None:
    with Client(careless(spoil_codes=spoil)) as client, pytest.raises(MalformedReplyError, match=words):
        client.infer(np.zeros((3, 6, 6), np.uint8))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"padding_top": 4, "padding_bottom": 4}, "native frame of 0 x 6"),
        ({"padding_left": 9}, "native frame of 6 x -2"),
        ({"background": 256}, "grey level 256"),
        ({"channels": 0}, "channels 0"),
        ({"width": 2**32 - 1}, "at most"),
    ],
)
def test_a_frame_that_makes_no_sense_is_named(careless: Start, image: dict[str, int], words: str) -> None:
    with Client(careless(describe=lambda served: fields(served.model.sample_space.image, **image))) as client:
        for ask in (client.models, client.model, lambda: client.sample(1)):
            with pytest.raises(MalformedReplyError, match=words):
                ask()


def test_a_model_of_neither_images_nor_points_is_named(careless: Start) -> None:
    address = careless(describe=lambda served: served.model.ClearField("sample_space"))
    with Client(address) as client, pytest.raises(MalformedReplyError, match="neither images nor points"):
        client.model()


def test_codes_above_what_a_request_holds_are_cut_to_those_needed(careless: Start) -> None:
    # 12,000 of them have more than 4 MiB, 7,000 have not, and need no stream.
    codes = [Code(category=i % 2, style=[0.5] * 100) for i in range(12_000)]
    with Client(careless(batches=lambda: iter([]))) as client:
        samples = client.sample(7000, codes=codes)
        assert samples.categories.tolist() == [0, 1] * 3500
    # Here even those needed are too many.
    with Client(careless()) as client:
        samples = client.sample(10_000, codes=[Code(category=i % 2, style=[0.5] * 200) for i in range(10_000)])
        assert samples.categories.tolist() == [0, 1] * 5000


def test_noise_above_what_a_request_holds_is_split(careless: Start) -> None:
    with Client(careless()) as client:
        samples = client.sample(512, noise=np.zeros((512, 4000)))
        assert len(samples) == 512
        assert samples.noise_given


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_a_servers_failure_is_no_refusal(careless: Start, status: grpc.StatusCode) -> None:
    with Client(careless(fail=(status, "internal error;\nrequest id 5f"))) as client:
        with pytest.raises(ServerFailedError, match="internal error; request id 5f") as failure:
            client.sample(1)
        assert failure.value.code == status.name


def test_another_server_is_told_from_infosinks(serve: Start) -> None:
    address = serve(lambda _: None)
    with Client(address) as client:
        with pytest.raises(RequestRefusedError, match=rf"{re.escape(address)} does not speak infosink\.v1") as refusal:
            client.models()
        assert refusal.value.code == "UNIMPLEMENTED"


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_the_wire_is_little_endian(byte_order: str) -> None:
    tensor = to_tensor(np.array([[1.0, -2.5]], f"{byte_order}f4"))
    assert tensor.data == bytes.fromhex("0000803f000020c0")
    array = from_tensor(tensor, "samples", FLOAT32, (1, 2))
    assert array.tolist() == [[1.0, -2.5]]
    assert array.dtype == np.float32
    assert array.flags.writeable
