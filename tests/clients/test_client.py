"""The client against a real server."""

import subprocess
import sys

import numpy as np
import pytest
from infosink.clients import Client, Code, RequestRefusedError, ServerUnreachableError


def test_samples_are_native_images_with_their_codes(client: Client) -> None:
    samples = client.sample(5, label="7", style=[0.5, -0.25], seed=1)
    assert samples.samples.shape == (5, 6, 6, 1)
    assert samples.samples.dtype == np.uint8
    assert samples.categories.tolist() == [3] * 5
    assert samples.labels.tolist() == ["7"] * 5
    assert samples.style.tolist() == [[0.5, -0.25]] * 5
    assert (samples.seed, samples.first_index, samples.model) == (1, 0, "images")
    assert samples.checkpoint_sha256 == client.model().model.checkpoint_sha256
    assert samples.noise_algorithm.startswith("philox4x64-10")


def test_the_native_frame_is_the_middle_of_the_models(client: Client) -> None:
    # The generator knows nothing of frames: what q reads from the native frame is what lies inside the padding.
    samples = client.sample(4, seed=1).samples
    padded = np.pad(samples, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0)
    native, model = client.infer(samples), client.infer(padded)
    assert np.array_equal(native.category_probability, model.category_probability)
    assert np.array_equal(native.style_mean, model.style_mean)


def test_a_seed_repeats_and_an_index_continues_a_draw(client: Client) -> None:
    whole = client.sample(10, seed=3)
    assert np.array_equal(client.sample(10, seed=3).samples, whole.samples)
    assert np.array_equal(client.sample(4, seed=3, first_index=6).samples, whole.samples[6:])
    assert not np.array_equal(client.sample(10, seed=4).samples, whole.samples)


def test_a_seed_chosen_by_the_server_repeats_the_draw(client: Client) -> None:
    first = client.sample(3)
    assert np.array_equal(client.sample(3, seed=first.seed).samples, first.samples)


def test_a_category_is_drawn_alone_where_a_label_has_several(client: Client) -> None:
    assert set(client.sample(20, category=2, seed=1).categories.tolist()) == {2}
    assert set(client.sample(20, label="1", seed=1).categories.tolist()) == {1, 2}


def test_codes_are_taken_in_turn_by_index(client: Client) -> None:
    codes = [Code(label="0"), Code(category=3, style=[0.25, 0.75]), Code()]
    samples = client.sample(6, codes=codes, seed=1, first_index=1)
    assert samples.labels[[0, 2, 3, 5]].tolist() == ["7", "0", "7", "0"]
    assert samples.style[0].tolist() == [0.25, 0.75]


def test_noise_is_taken_as_given_shared_or_drawn(client: Client) -> None:
    fixed = {"category": 0, "style": [0.0, 0.0], "seed": 1}
    drawn = client.sample(4, **fixed)
    shared = client.sample(4, shared_noise_index=2, **fixed)
    assert (shared.samples == drawn.samples[2]).all()
    assert not (drawn.samples == drawn.samples[2]).all()
    noise = np.random.default_rng(0).standard_normal((4, 3)).astype(">f4")
    given = client.sample(4, noise=noise, **fixed)
    assert np.array_equal(client.sample(1, noise=noise[3:], **fixed).samples[0], given.samples[3])
    assert not np.array_equal(given.samples[0], given.samples[3])
    noise_sources = [(samples.shared_noise_index, samples.noise_given) for samples in (drawn, shared, given)]
    assert noise_sources == [(None, False), (2, False), (None, True)]


def test_a_long_draw_is_streamed_and_equals_its_parts(client: Client) -> None:
    count = client.model().limits.unary_uint8_samples + 1
    whole = client.sample(count, seed=5, first_index=7)
    assert len(whole) == len(whole.categories) == len(whole.labels) == len(whole.style) == count
    last = client.sample(3, seed=5, first_index=7 + count - 3)
    assert np.array_equal(whole.samples[-3:], last.samples)
    assert np.array_equal(whole.style[-3:], last.style)
    assert whole.labels[-3:].tolist() == last.labels.tolist()


def test_a_stream_without_a_seed_keeps_the_one_that_was_chosen(client: Client) -> None:
    batches = list(client.stream(1300, style=[0.0, 0.0]))
    assert len(batches) > 1
    assert [batch.first_index for batch in batches] == np.cumsum([0, *map(len, batches)]).tolist()[:-1]
    again = client.sample(1300, style=[0.0, 0.0], seed=batches[0].seed)
    assert np.array_equal(np.concatenate([batch.samples for batch in batches]), again.samples)


def test_a_stream_takes_more_codes_and_noise_than_one_call(client: Client) -> None:
    count = 1300
    values = np.linspace(-1, 1, count).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    codes = [Code(category=i % 4, style=(value, -value)) for i, value in enumerate(values.tolist())]
    # Sample i takes codes[i mod their number], so the first sample takes the fifth code.
    batches = list(client.stream(count, codes=codes, noise=noise, seed=1, first_index=4))
    style = np.concatenate([batch.style for batch in batches])
    assert style[:, 0].tolist() == np.roll(values, -4).tolist()
    assert np.concatenate([batch.categories for batch in batches]).tolist() == [(i + 4) % 4 for i in range(count)]
    last = client.sample(1, category=3, style=style[-1], noise=noise[-1:], seed=1)
    assert np.array_equal(batches[-1].samples[-1], last.samples[0])


def test_points_are_real_numbers(client: Client) -> None:
    samples = client.sample(6, seed=1, model="points")
    assert samples.samples.shape == (6, 2)
    assert samples.samples.dtype == np.float32
    assert samples.style.shape == (6, 0)
    codes = client.infer(samples.samples.astype(np.float64), model="points")
    assert codes.category_probability.shape == (6, 3)
    np.testing.assert_allclose(codes.category_probability.sum(axis=1), 1, rtol=1e-5)
    assert len(client.infer(samples.samples.astype(np.float16), model="points")) == 6


def test_codes_are_inferred_from_generated_images(client: Client) -> None:
    samples = client.sample(40, seed=1)
    codes = client.infer(samples.samples)
    assert (codes.categories == codes.category_probability.argmax(axis=1)).all()
    assert (codes.categories == samples.categories).mean() > 0.8
    labels = [category.label for category in client.model().model.latent_space.categories]
    assert codes.labels.tolist() == [labels[category] for category in codes.categories]
    assert codes.style_mean.shape == codes.style_std.shape == (40, 2)
    grey = client.infer(samples.samples[..., 0])
    assert np.array_equal(grey.category_probability, codes.category_probability)


def test_inference_is_split_at_the_servers_limit(client: Client) -> None:
    limit = client.model().limits.inferred_samples
    images = client.sample(3, seed=1).samples
    many = np.resize(images, (limit + 3, *images.shape[1:]))
    codes = client.infer(many)
    assert len(codes) == limit + 3
    assert np.array_equal(codes.style_mean, np.resize(client.infer(images).style_mean, (limit + 3, 2)))


def test_models_describe_themselves(client: Client) -> None:
    assert [served.model.name for served in client.models()] == ["images", "points"]
    assert client.model("points").model.sample_space.point.dimensions == 2
    assert client.model() == client.model("images")


def test_a_description_is_the_callers_own(client: Client) -> None:
    client.model().model.sample_space.Clear()
    assert client.sample(1, seed=1).samples.shape == (1, 6, 6, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ({"label": "5"}, "FAILED_PRECONDITION", "7"),
        ({"category": 4}, "INVALID_ARGUMENT", "4"),
        ({"style": [0.5]}, "INVALID_ARGUMENT", "2"),
        ({"style": [0.5, 2]}, "INVALID_ARGUMENT", "2"),
        ({"noise": [[0.0, 0.0]]}, "INVALID_ARGUMENT", "3"),
        ({"model": "mnist"}, "NOT_FOUND", "images"),
    ],
)
def test_a_refusal_says_why(client: Client, arguments: dict[str, object], code: str, word: str) -> None:
    with pytest.raises(RequestRefusedError) as refusal:
        client.sample(1, **arguments)
    assert refusal.value.code == code
    assert word in str(refusal.value)
    with pytest.raises(RequestRefusedError) as streamed:
        list(client.stream(1, **arguments))
    assert streamed.value.code == code


def test_an_image_of_another_size_is_refused(client: Client) -> None:
    with pytest.raises(RequestRefusedError, match="6"):
        client.infer(np.zeros((1, 28, 28), np.uint8))


@pytest.mark.parametrize(
    "arguments",
    [
        {"count": 0},
        {"count": 1, "category": 1, "label": "1"},
        {"count": 1, "label": "1", "codes": [Code(label="1")]},
        {"count": 1, "noise": [[0.0] * 3], "shared_noise_index": 0},
        {"count": 3, "noise": [[0.0] * 3] * 2},
        {"count": 1, "seed": 2**64},
        {"count": 2, "first_index": 2**64 - 1},
        {"count": 1, "category": -1},
        {"count": 1, "noise": [[np.nan] * 3]},
        {"count": 1, "noise": [[1e300] * 3]},
        {"count": 1, "noise": np.full((1, 3), 10.5, np.float16)},
    ],
)
def test_nonsense_is_a_value_error(client: Client, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"give|must"):
        client.sample(**arguments)


def test_noise_is_numbers(client: Client) -> None:
    with pytest.raises(TypeError, match="real numbers"):
        client.sample(1, noise=[["a", "b", "c"]])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_points_are_finite(client: Client, value: float) -> None:
    with pytest.raises(ValueError, match="points must be finite"):
        client.infer([[value, 0.0]], model="points")


@pytest.mark.parametrize("samples", [np.zeros((1, 6, 6), np.float32), np.zeros((1, 6, 6), np.int64)])
def test_images_are_bytes(client: Client, samples: np.ndarray) -> None:
    with pytest.raises(TypeError, match="uint8"):
        client.infer(samples)


@pytest.mark.parametrize("samples", [np.zeros((0, 6, 6), np.uint8), np.zeros((6, 6), np.uint8), np.uint8(1)])
def test_one_image_alone_is_no_batch(client: Client, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give"):
        client.infer(samples)


def test_an_absent_server_is_unreachable(nobody: str) -> None:
    with (
        Client(nobody, timeout=20) as client,
        pytest.raises(ServerUnreachableError, match=f"{nobody}; start one with: infosink-serve, or"),
    ):
        client.models()


def test_a_silent_server_meets_the_deadline(silent: str) -> None:
    with Client(silent, timeout=0.2) as client, pytest.raises(ServerUnreachableError, match=r"within 0\.2 s"):
        client.models()


def test_the_address_comes_from_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOSINK_SERVER", server)
    with Client() as client:
        assert client.address == server
        assert client.models()
    monkeypatch.setenv("INFOSINK_SERVER", "")
    with Client() as client:
        assert client.address == "127.0.0.1:50051"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        *((address, "HOST:PORT") for address in ("localhost", "127.0.0.1:", "a b:1", ":50051", "a:\u0661", "\udcff:1")),
        ("127.0.0.1:0", "between 1 and 65535"),
        # gRPC would take it for 1.
        ("127.0.0.1:65537", "between 1 and 65535"),
        ("[::1]:99999", "between 1 and 65535"),
        ("unix:/" + 107 * "x", "at most 107"),
        ("unix:///" + 107 * "x", "at most 107"),
    ],
)
def test_an_address_that_cannot_be_is_named(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Client(address)


@pytest.mark.parametrize("address", ["127.0.0.1:65535", "[::1]:1", "unix:///" + 106 * "x", "unix:x"])
def test_every_address_that_can_be_is_taken(address: str) -> None:
    with Client(address) as client:
        assert client.address == address


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 86_401])
def test_a_timeout_is_bounded(timeout: float) -> None:
    with pytest.raises(ValueError, match="at most 86400"):
        Client("127.0.0.1:1", timeout=timeout)


def test_an_interrupt_while_a_call_starts_leaves_nothing_waiting(server: str) -> None:
    # The one moment in which gRPC counts a call that nobody will ever finish.
    code = f"""
import sys
from infosink.clients import Client

def strike(frame, event, argument):
    if frame.f_code.co_name == "_run_channel_spin_thread":
        sys.settrace(None)
        raise KeyboardInterrupt

try:
    with Client({server!r}) as client:
        sys.settrace(strike)
        list(client.stream(1))
except KeyboardInterrupt:
    print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert (result.stdout, result.stderr) == ("interrupted\n", "")


def test_a_label_is_text(client: Client) -> None:
    with pytest.raises(TypeError, match="the label is 7; give it as text, such as label='7'"):
        client.sample(1, label=7)
