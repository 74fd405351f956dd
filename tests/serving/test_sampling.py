"""Sample and StreamSamples over a real socket: what is drawn, and that it is drawn again byte for byte."""

import io
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from infosink.serving.models.draws import draw as draw_prior
from infosink.serving.models.frames import largest_encoding
from infosink.serving.runtime.admission import STREAMS
from infosink.serving.sampling.png import encode
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_PNG,
    ENCODING_UINT8,
    ENCODING_UNSPECIFIED,
    Code,
    Draw,
    Encoding,
    GetModelRequest,
    ListModelsRequest,
    Noise,
    SampleBatch,
    SampleRequest,
    StreamSamplesRequest,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceStub
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8, Tensor
from PIL import Image

MESSAGE_LIMIT = 4194304


def array(tensor: Tensor) -> np.ndarray:
    element_type = {DATA_TYPE_UINT8: "u1", DATA_TYPE_FLOAT32: "<f4"}[tensor.data_type]
    return np.frombuffer(tensor.data, element_type).reshape(tuple(tensor.shape))


def floats(values: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=values.shape, data=values.astype("<f4").tobytes())


def sample(
    stub: SamplingServiceStub, encoding: Encoding = ENCODING_FLOAT32, model: str = "", **draw: object
) -> SampleBatch:
    return stub.Sample(SampleRequest(model=model, encoding=encoding, draw=Draw(**draw))).batch


def stream(
    stub: SamplingServiceStub, encoding: Encoding = ENCODING_FLOAT32, model: str = "", **draw: object
) -> list[SampleBatch]:
    request = StreamSamplesRequest(model=model, encoding=encoding, draw=Draw(**draw))
    return [reply.batch for reply in stub.StreamSamples(request)]


def joined(batches: Iterable[SampleBatch]) -> tuple[bytes, bytes, list[int], list[str]]:
    batches = list(batches)
    return (
        b"".join(batch.tensor.data for batch in batches),
        b"".join(batch.style.data for batch in batches),
        [category for batch in batches for category in batch.categories],
        [label for batch in batches for label in batch.labels],
    )


def test_a_reply_states_all_that_is_needed_to_draw_again(stub: SamplingServiceStub) -> None:
    first = sample(stub, count=5, first_index=3)
    described = stub.GetModel(GetModelRequest()).served_model
    assert first.model == described.model.name == "tiny-images"
    assert first.checkpoint_sha256 == described.model.checkpoint_sha256
    assert first.noise_algorithm == "philox4x64-10/box-muller/1"
    assert first.first_index == 3
    assert first.execution_provider == described.execution_provider == "CPUExecutionProvider"
    assert first.runtime_version == described.runtime_version
    assert [["0", "1", "1", "7"][category] for category in first.categories] == list(first.labels)
    codes = [Code(category=k, style=style) for k, style in zip(first.categories, array(first.style), strict=True)]
    # Sample i takes codes[i modulo their number].
    turned = [codes[(i - 3) % 5] for i in range(5)]
    assert sample(stub, count=5, first_index=3, seed=first.seed) == first
    assert sample(stub, count=5, first_index=3, seed=first.seed, codes=turned) == first


def test_codes_and_noise_are_the_priors_draws(stub: SamplingServiceStub) -> None:
    batch = sample(stub, count=100, seed=9, first_index=70)
    draws = draw_prior(9, 70, 100, styles=2, noise_dimensions=3)
    assert list(batch.categories) == (draws.category_uniform * 4).astype(int).tolist()
    assert batch.style.data == draws.style.tobytes()
    stated = sample(stub, count=100, seed=1, first_index=70, noise=Noise(values=floats(draws.noise)))
    assert stated.style != batch.style
    codes = [Code(category=k, style=s) for k, s in zip(batch.categories, array(batch.style), strict=True)]
    # 70 is 70 modulo 100.
    codes = codes[30:] + codes[:30]
    again = sample(stub, count=100, seed=1, first_index=70, codes=codes, noise=Noise(values=floats(draws.noise)))
    assert again.tensor == batch.tensor


@pytest.mark.parametrize("encoding", [ENCODING_UINT8, ENCODING_FLOAT32])
def test_samples_have_the_same_bytes_at_every_batch_size_and_place(
    stub: SamplingServiceStub, encoding: Encoding
) -> None:
    codes = [Code(label="1"), Code(category=3, style=[0.25, -1]), Code()]
    whole = sample(stub, encoding, count=200, seed=5, first_index=40, codes=codes)
    size = len(whole.tensor.data) // 200
    for count in [*range(1, 68), 127, 128, 129]:
        start = (7 * count) % (200 - count)
        part = sample(stub, encoding, count=count, seed=5, first_index=40 + start, codes=codes)
        rows = slice(start, start + count)
        assert part.tensor.data == whole.tensor.data[start * size : (start + count) * size]
        assert part.categories == whole.categories[rows]
        assert part.style.data == array(whole.style)[rows].tobytes()


@pytest.mark.parametrize("model", ["tiny-images", "tiny-points"])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_streamed_samples_are_the_unary_ones(stub: SamplingServiceStub, model: str, count: int) -> None:
    batches = stream(stub, model=model, count=count, seed=5, first_index=2**63)
    assert joined(batches) == joined([sample(stub, model=model, count=count, seed=5, first_index=2**63)])
    assert [len(batch.categories) for batch in batches] == [64] * (count // 64) + [count % 64] * (count % 64 > 0)
    assert [batch.first_index for batch in batches] == [2**63 + 64 * i for i in range(len(batches))]
    assert {batch.seed for batch in batches} == {5}


def test_another_server_gives_the_same_bytes(
    stub: SamplingServiceStub, start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    other = start_server(load_file(schema_1 / "gen.onnx")).stub
    assert sample(other, count=100, seed=11) == sample(stub, count=100, seed=11)


def test_calls_at_once_do_not_disturb_each_other(stub: SamplingServiceStub) -> None:
    alone = [sample(stub, count=70, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: sample(stub, count=70, seed=seed), range(8))) == alone


def test_the_last_index_can_be_drawn(stub: SamplingServiceStub) -> None:
    last = sample(stub, count=1, seed=2**64 - 1, first_index=2**64 - 1)
    both = sample(stub, count=2, seed=2**64 - 1, first_index=2**64 - 2)
    assert last.tensor.data == both.tensor.data[len(last.tensor.data) :]


def test_an_absent_seed_is_random_and_stated(stub: SamplingServiceStub) -> None:
    first, second = sample(stub, count=3), sample(stub, count=3)
    assert first.seed != second.seed
    assert sample(stub, count=3, seed=first.seed) == first
    assert sample(stub, count=3, seed=0).seed == 0
    assert len({batch.seed for batch in stream(stub, count=200)}) == 1


def test_a_code_fixes_what_it_states_and_nothing_else(stub: SamplingServiceStub) -> None:
    free = sample(stub, count=50, seed=3)
    styled = sample(stub, count=50, seed=3, codes=[Code(style=[0.5, -0.25])])
    assert styled.categories == free.categories
    np.testing.assert_array_equal(array(styled.style), np.tile(np.float32([0.5, -0.25]), (50, 1)))
    chosen = sample(stub, count=50, seed=3, codes=[Code(category=2)])
    assert set(chosen.categories) == {2}
    assert chosen.style == free.style
    rows = [i for i, category in enumerate(free.categories) if category == 2]
    np.testing.assert_array_equal(array(chosen.tensor)[rows], array(free.tensor)[rows])


def test_a_label_draws_uniformly_among_its_categories(stub: SamplingServiceStub) -> None:
    batch = sample(stub, count=2000, seed=1, codes=[Code(label="1")])
    assert set(batch.labels) == {"1"}
    assert set(batch.categories) == {1, 2}
    assert 900 < list(batch.categories).count(1) < 1100
    assert set(sample(stub, count=20, codes=[Code(label="7")]).categories) == {3}


def test_codes_are_taken_in_turn_by_index(stub: SamplingServiceStub) -> None:
    codes = [Code(category=0), Code(category=1), Code(category=3)]
    assert list(sample(stub, count=5, codes=codes, first_index=4).categories) == [1, 3, 0, 1, 3]
    last = (2**64 - 2) % 3
    wrapped = sample(stub, count=2, codes=codes, first_index=2**64 - 2).categories
    assert list(wrapped) == [[0, 1, 3][last], [0, 1, 3][(last + 1) % 3]]


def test_stated_noise_goes_to_its_sample(stub: SamplingServiceStub) -> None:
    noise = np.random.default_rng(0).normal(size=(130, 3)).astype(np.float32)
    codes = [Code(category=1, style=[0, 0])]
    whole = array(sample(stub, count=130, first_index=500, codes=codes, noise=Noise(values=floats(noise))).tensor)
    for row in (0, 63, 64, 129):
        alone = sample(stub, count=1, codes=codes, noise=Noise(values=floats(noise[row : row + 1])))
        assert alone.tensor.data == whole[row].tobytes()
    alike = array(sample(stub, count=130, codes=codes, noise=Noise(values=floats(noise[5:6]))).tensor)
    np.testing.assert_array_equal(alike, np.tile(whole[5], (130, 1, 1, 1)))


def test_shared_noise_is_that_of_the_sample_it_names(stub: SamplingServiceStub) -> None:
    codes = [Code(category=1, style=[0, 0])]
    own = sample(stub, count=1, seed=4, first_index=77, codes=codes).tensor.data
    alike = array(sample(stub, count=100, seed=4, first_index=3, codes=codes, noise=Noise(shared_index=77)).tensor)
    assert {image.tobytes() for image in alike} == {own}
    batches = stream(stub, count=100, seed=4, first_index=3, codes=codes, noise=Noise(shared_index=77))
    assert joined(batches)[0] == alike.tobytes()
    assert len({image.tobytes() for image in array(sample(stub, count=100, codes=codes, noise=Noise()).tensor)}) == 100


@pytest.mark.parametrize("count", [3, 100])
def test_a_reply_states_where_its_noise_came_from(stub: SamplingServiceStub, count: int) -> None:
    values = np.zeros((count, 3), np.float32)
    for noise, source, index in [
        (None, None, 0),
        (Noise(), None, 0),
        (Noise(shared_index=0), "shared_noise_index", 0),
        (Noise(shared_index=2**64 - 1), "shared_noise_index", 2**64 - 1),
        (Noise(values=floats(values)), "noise_given", 0),
        (Noise(values=floats(values[:1])), "noise_given", 0),
    ]:
        for batch in [sample(stub, count=count, noise=noise), *stream(stub, count=count, noise=noise)]:
            assert batch.WhichOneof("noise_source") == source
            assert batch.shared_noise_index == index
            assert batch.noise_given == (source == "noise_given")


def test_encodings_show_the_same_samples(stub: SamplingServiceStub) -> None:
    values = array(sample(stub, ENCODING_FLOAT32, count=70, seed=2).tensor)
    pixels = array(sample(stub, ENCODING_UINT8, count=70, seed=2).tensor)
    files = sample(stub, ENCODING_PNG, count=70, seed=2).png.images
    assert values.shape == (70, 1, 8, 8)
    assert pixels.shape == (70, 8, 8, 1)
    np.testing.assert_array_equal(pixels[..., 0], np.round((values[:, 0] + 1) * np.float32(127.5)))
    images = [Image.open(io.BytesIO(file)) for file in files]
    assert {(image.format, image.mode, image.size) for image in images} == {("PNG", "L", (6, 6))}
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in images]), pixels[:, 1:-1, 1:-1, 0])
    assert sample(stub, ENCODING_UNSPECIFIED, count=70, seed=2).tensor.data == pixels.tobytes()
    streamed = stream(stub, ENCODING_PNG, count=70, seed=2)
    assert [file for batch in streamed for file in batch.png.images] == list(files)


def test_points_have_no_styles_and_are_float32(stub: SamplingServiceStub) -> None:
    batch = sample(stub, ENCODING_UNSPECIFIED, "tiny-points", count=500, seed=1, codes=[Code(label="2")])
    assert batch.style.shape == [500, 0]
    assert batch.tensor.shape == [500, 2]
    assert array(batch.tensor).mean(0) == pytest.approx([1.99, -1.39], abs=0.05)


@pytest.mark.parametrize("model", ["tiny-images", "tiny-points"])
@pytest.mark.parametrize("encoding", [ENCODING_UINT8, ENCODING_FLOAT32, ENCODING_PNG])
def test_unary_limits_keep_replies_under_4_mib(
    stub: SamplingServiceStub, model: str, encoding: Encoding, refusal: Callable
) -> None:
    limits = stub.GetModel(GetModelRequest(model=model)).served_model.limits
    limit = {
        ENCODING_UINT8: limits.unary_uint8_samples,
        ENCODING_FLOAT32: limits.unary_float32_samples,
        ENCODING_PNG: limits.unary_png_samples,
    }[encoding]
    if model == "tiny-points" and encoding != ENCODING_FLOAT32:
        assert limit == 0
        return
    reply = stub.Sample(SampleRequest(model=model, encoding=encoding, draw=Draw(count=limit, codes=[Code(category=2)])))
    assert len(reply.batch.categories) == limit
    assert reply.ByteSize() < MESSAGE_LIMIT
    code, message = refusal(stub.Sample, SampleRequest(model=model, encoding=encoding, draw=Draw(count=limit + 1)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"draw.count is {limit + 1}, over the limit of {limit}" in message
    assert "StreamSamples" in message


def test_unary_limits_are_not_needlessly_low(stub: SamplingServiceStub) -> None:
    limits = stub.GetModel(GetModelRequest()).served_model.limits
    reply = stub.Sample(SampleRequest(encoding=ENCODING_FLOAT32, draw=Draw(count=limits.unary_float32_samples)))
    assert reply.ByteSize() > 0.9 * MESSAGE_LIMIT


@pytest.mark.parametrize("size", [1, 2, 6, 28, 32, 100, 257, 700])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_png_exceeds_its_bound(size: int, channels: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, channels), np.uint8)
    pixels[1] = np.arange(size)[:, None, None] % 2 * 255
    assert max(len(file) for file in encode(pixels)) <= largest_encoding(size, size, channels)


def test_models_are_listed_first_one_first(stub: SamplingServiceStub) -> None:
    served = stub.ListModels(ListModelsRequest()).served_models
    assert [one.model.name for one in served] == ["tiny-images", "tiny-points", "bare"]
    assert [one.infers_codes for one in served] == [True, True, False]
    assert [category.label for category in served[0].model.latent_space.categories] == ["0", "1", "1", "7"]
    assert served[0].model.latent_space.categories[0].label_share == 0.97
    assert not any(category.HasField("agreement") for category in served[0].model.latent_space.categories)
    assert served[0].model.latent_space.styles[0].meaning == "slant, rank correlation 0.91"
    assert served[0].model.sample_space.image.padding_left == 1
    assert served[0].model.licence == "Apache-2.0"
    assert served[0].limits.stream_samples == 1_000_000
    assert stub.GetModel(GetModelRequest(model="bare")).served_model == served[2]


def test_streams_are_few_and_end_with_their_clients(
    refusal: Callable, start_server: Callable, load_file: Callable, schema_1: Path
) -> None:
    server = start_server(load_file(schema_1 / "gen.onnx"))
    request = StreamSamplesRequest(draw=Draw(count=1_000_000), encoding=ENCODING_FLOAT32)
    streams = [server.stub.StreamSamples(request) for _ in range(STREAMS)]
    for one in streams:
        next(one)
    code, message = refusal(server.stub.StreamSamples, request)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert message.startswith(
        f"{STREAMS} StreamSamples calls are open, as many as this server allows at once: make fewer"
    )
    # Short calls are answered meanwhile.
    assert len(sample(server.stub, count=2).categories) == 2
    for one in streams:
        one.cancel()
    deadline = time.monotonic() + 30
    while not is_served(server.stub):
        assert time.monotonic() < deadline


def is_served(stub: SamplingServiceStub) -> bool:
    """Whether a stream is answered rather than refused for want of capacity."""
    try:
        return bool(stream(stub, count=1))
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return False
        raise


def test_a_category_without_a_label_is_selected_by_its_index_alone(
    altered: Callable, with_metadata: Callable, load_file: Callable, start_server: Callable, refusal: Callable
) -> None:
    categories = [{"label": label} for label in ("0", "", "1", "7")]
    space = json.dumps({"categories": categories, "styles": [{}, {}], "noise_dimensions": 3})
    server = start_server(load_file(altered("gen.onnx", with_metadata(latent_space=space))))
    code, details = refusal(server.stub.Sample, SampleRequest(draw=Draw(count=1, codes=[Code(label="")])))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert details.endswith('the labels that exist are "0", "1", "7"')
    batch = server.stub.Sample(SampleRequest(draw=Draw(count=2, codes=[Code(category=1)]))).batch
    assert list(batch.labels) == ["", ""]
