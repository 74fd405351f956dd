"""The `infosink` command against a real server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from infosink.clients import Client
from infosink.v1 import sampling_service_pb2 as v1
from PIL import Image

Run = Callable[..., Result]
Start = Callable[..., str]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# sample


def drawn_again(client: Client, note: dict[str, Any], place: int) -> np.ndarray:
    """The sample at a place of a picture, by the picture's own note."""
    return client.sample(
        1,
        category=note["categories"][place],
        style=note["style"][place],
        seed=note["seed"],
        first_index=note["first_index"] + place,
        shared_noise_index=note.get("shared_noise_index"),
        model=note["model"],
    ).samples[0, ..., 0]


def note_and_pixels(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    with Image.open(path) as picture:
        return json.loads(picture.text["infosink"]), np.asarray(picture)


@pytest.mark.parametrize("shared", [True, False])
def test_every_picture_says_how_to_draw_it_again(infosink: Run, folder: Path, client: Client, shared: bool) -> None:
    arguments = ["sample", "--count", "4", "--first-index", "9", *(["--shared-noise"] if shared else [])]
    assert infosink(*arguments, "-o", "x.png").exit_code == 0
    note, pixels = note_and_pixels(folder / "x.png")
    for place in range(4):
        y, x = 2 + place // 2 * 50, 2 + place % 2 * 50
        assert np.array_equal(pixels[y : y + 48 : 8, x : x + 48 : 8], drawn_again(client, note, place))
    assert infosink(*arguments, "-o", "x/").exit_code == 0
    for index, path in enumerate(sorted((folder / "x").iterdir()), start=9):
        note, pixels = note_and_pixels(path)
        assert note["first_index"] == index
        assert np.array_equal(pixels, drawn_again(client, note, 0))


def test_a_traversal_says_how_to_draw_it_again(infosink: Run, folder: Path, client: Client) -> None:
    assert infosink("traverse", "--steps", "2", "--style", "0.3", "--style", "0.7", "-o", "x.png").exit_code == 0
    note, pixels = note_and_pixels(folder / "x.png")
    # The last one is in the lower right corner.
    assert len(note["categories"]) == len(note["style"]) == 6
    assert np.array_equal(pixels[-50:-2:8, -50:-2:8], drawn_again(client, note, 5))


def test_arrays_say_where_shared_noise_is_from(infosink: Run, folder: Path) -> None:
    for arguments, expected in ([], None), (["--shared-noise"], 9):
        assert infosink("sample", "--first-index", "9", *arguments, "-o", "x.npz").exit_code == 0
        with np.load(folder / "x.npz", allow_pickle=False) as arrays:
            assert (int(arrays["shared_noise_index"]) if "shared_noise_index" in arrays else None) == expected


def test_a_long_sample_is_written_as_it_comes(infosink: Run, careless: Start, folder: Path) -> None:
    # The third part of the draw finds the first two in the output.
    sizes = []

    def spoil(batch: v1.SampleBatch) -> None:
        if batch.first_index == 1024:
            sizes.extend(path.stat().st_size for path in folder.iterdir())

    def large(served: v1.ServedModel) -> None:
        served.model.sample_space.image.height = served.model.sample_space.image.width = 64

    server = careless(describe=large, spoil=spoil)
    assert infosink("sample", "--count", "1500", "-o", "x.npz", "--server", server).exit_code == 0
    assert len(sizes) == 1
    assert sizes[0] > 1000 * 62 * 62


def test_a_picture_is_a_grid_of_the_clients_images(infosink: Run, folder: Path, client: Client) -> None:
    assert infosink("sample", "--label", "7", "--count", "5", "--seed", "1", "-o", "x.png").exit_code == 0
    images = client.sample(5, label="7", seed=1).samples
    with Image.open(folder / "x.png") as picture:
        pixels = np.asarray(picture)
        origin = json.loads(picture.text["infosink"])
    # Three columns and two rows of 6 x 6 pixels, each enlarged 8 times, 2 pixels apart.
    assert pixels.shape == (2 + 2 * 50, 2 + 3 * 50)
    for index, image in enumerate(images):
        y, x = 2 + index // 3 * 50, 2 + index % 3 * 50
        assert np.array_equal(pixels[y : y + 48 : 8, x : x + 48 : 8], image[..., 0])
        assert np.array_equal(pixels[y + 7 : y + 48 : 8, x + 7 : x + 48 : 8], image[..., 0])
    assert (origin["seed"], origin["first_index"], origin["model"]) == (1, 0, "images")


def test_arrays_are_the_clients(infosink: Run, folder: Path, client: Client) -> None:
    arguments = ["--style", "0.5", "--style", "-0.25", "--count", "7", "--seed", "3", "--first-index", "9"]
    assert infosink("sample", *arguments, "-o", "x.npz").exit_code == 0
    expected = client.sample(7, style=[0.5, -0.25], seed=3, first_index=9)
    with np.load(folder / "x.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["samples"], expected.samples[..., 0])
        assert np.array_equal(arrays["category"], expected.categories)
        assert arrays["label"].tolist() == expected.labels.tolist()
        assert np.array_equal(arrays["style"], expected.style)
        assert (int(arrays["seed"]), int(arrays["first_index"])) == (3, 9)
        assert str(arrays["checkpoint_sha256"]) == expected.checkpoint_sha256
        assert str(arrays["noise_algorithm"]) == expected.noise_algorithm
        assert str(arrays["model"]) == "images"


def test_points_are_arrays_or_a_scatter(infosink: Run, folder: Path, client: Client) -> None:
    for output in ("x.npz", "x.png"):
        assert infosink("sample", "--model", "points", "--seed", "1", "-o", output).exit_code == 0
    with np.load(folder / "x.npz") as arrays:
        assert np.array_equal(arrays["samples"], client.sample(16, seed=1, model="points").samples)
    with Image.open(folder / "x.png") as picture:
        assert picture.mode == "RGB"


@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_holds_one_image_a_sample(infosink: Run, folder: Path, client: Client, existing: bool) -> None:
    if existing:
        (folder / "x").mkdir()
    result = infosink("sample", "--count", "3", "--seed", "1", "--first-index", "4", "-o", "x" if existing else "x/")
    assert result.exit_code == 0
    expected = client.sample(3, seed=1, first_index=4)
    assert files(folder) == ["x"]
    assert files(folder / "x") == [
        f"{i:06d}-label{label}.png" for i, label in zip((4, 5, 6), expected.labels, strict=True)
    ]
    for path, image in zip(sorted((folder / "x").iterdir()), expected.samples, strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), image[..., 0])


def test_the_same_seed_gives_the_same_files(infosink: Run, folder: Path) -> None:
    for suffix in ("png", "npz"):
        for name in ("one", "two"):
            assert infosink("sample", "--seed", "5", "-o", f"{name}.{suffix}").exit_code == 0
        assert (folder / f"one.{suffix}").read_bytes() == (folder / f"two.{suffix}").read_bytes()


def test_shared_noise_leaves_one_image_for_one_code(infosink: Run, folder: Path) -> None:
    code = ["--category", "0", "--style", "0", "--style", "0", "--seed", "1", "-o", "x.npz"]
    distinct = []
    for option in ([], ["--shared-noise"]):
        assert infosink("sample", *code, *option).exit_code == 0
        with np.load(folder / "x.npz") as arrays:
            distinct.append(len({image.tobytes() for image in arrays["samples"]}))
    assert distinct == [16, 1]


def test_the_result_as_json(infosink: Run) -> None:
    result = json.loads(
        infosink("sample", "--label", "1", "--count", "4", "--seed", "2", "-o", "x.npz", "--json").stdout
    )
    assert (result["output"], result["count"], result["seed"], result["model"]) == ("x.npz", 4, 2, "images")
    assert set(result["categories"]) <= {1, 2}
    assert result["labels"] == ["1"] * 4


# batch


def test_a_batch_takes_every_label_in_turn(infosink: Run, folder: Path, client: Client) -> None:
    result = infosink("batch", "--count", "1500", "--seed", "1", "-o", "x.npz", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["labels"] == {"0": 500, "1": 500, "7": 500}
    with np.load(folder / "x.npz") as arrays:
        assert arrays["label"].tolist() == ["0", "1", "7"] * 500
        assert set(arrays["category"].tolist()) == {0, 1, 2, 3}
        assert arrays["samples"].shape == (1500, 6, 6)
        alone = client.sample(1, label="7", seed=1, first_index=1499)
        assert np.array_equal(arrays["samples"][1499], alone.samples[0, ..., 0])
        assert np.array_equal(arrays["style"][1499], alone.style[0])


def test_a_batch_takes_every_category_in_turn(infosink: Run, folder: Path) -> None:
    assert infosink("batch", "--count", "10", "--by", "category", "-o", "x/").exit_code == 0
    labels = [re.fullmatch(r"\d{6}-label(.+)\.png", name)[1] for name in files(folder / "x")]
    assert labels == ["0", "1", "1", "7", "0", "1", "1", "7", "0", "1"]


# infer


@pytest.fixture
def seven(folder: Path, client: Client) -> np.ndarray:
    """The pixels of a seven, also in seven.png."""
    image = client.sample(1, label="7", style=[0, 0], seed=1).samples[0, ..., 0]
    Image.fromarray(image).save(folder / "seven.png")
    return image


def test_codes_are_read_from_a_file(infosink: Run, client: Client, seven: np.ndarray) -> None:
    text = infosink("infer", "seven.png").stdout
    assert "seven.png: label 7 (category 3, probability 0." in text
    assert "  slant, rank correlation 0.91: mean " in text
    (image,) = json.loads(infosink("infer", "seven.png", "--json").stdout)["images"]
    expected = client.infer(seven[np.newaxis])
    assert (image["image"], image["label"], image["category"]) == ("seven.png", "7", 3)
    np.testing.assert_allclose(image["category_probability"], expected.category_probability[0], rtol=1e-6)
    np.testing.assert_allclose(image["style_mean"], expected.style_mean[0], rtol=1e-6)
    np.testing.assert_allclose(image["style_std"], expected.style_std[0], rtol=1e-6)


def test_other_forms_of_the_image_read_the_same(infosink: Run, folder: Path, seven: np.ndarray) -> None:
    grey = Image.fromarray(seven)
    grey.convert("RGB").save(folder / "colour.png")
    grey.convert("RGBA").save(folder / "opaque.png")
    Image.fromarray(np.pad(seven, 1)).save(folder / "padded.png")
    Image.fromarray(255 - seven).save(folder / "dark.png")
    names = ["seven.png", "colour.png", "opaque.png", "padded.png"]
    images = json.loads(infosink("infer", *names, "--json").stdout)["images"]
    images += json.loads(infosink("infer", "dark.png", "--invert", "--json").stdout)["images"]
    assert [image["image"] for image in images] == [*names, "dark.png"]
    assert all(image["style_mean"] == images[0]["style_mean"] for image in images)


def test_an_image_of_another_size_is_fitted_where_asked_for(infosink: Run, folder: Path, seven: np.ndarray) -> None:
    Image.fromarray(seven.repeat(10, axis=0).repeat(10, axis=1)).save(folder / "large.png")
    refused = infosink("infer", "large.png")
    assert refused.exit_code == 1
    assert "large.png has 60 x 60 pixels; the model reads 6 x 6 or 8 x 8: fit it with --resize" in refused.stderr
    assert "large.png: label 7" in infosink("infer", "large.png", "--resize").stdout


def test_a_thin_image_is_fitted_too(infosink: Run, folder: Path, seven: np.ndarray) -> None:
    for size in ((1500, 10), (10, 1500)):
        Image.new("L", size).save(folder / "thin.png")
        assert infosink("infer", "thin.png", "--resize").exit_code == 0


def test_damaged_notes_beside_the_pixels_do_no_harm(infosink: Run, folder: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\0\0\0\xff\xff\0\0"
    Image.new("L", (6, 6)).save(folder / "x.jpg", exif=exif)
    with pytest.warns(UserWarning, match="Truncated File Read"), Image.open(folder / "x.jpg") as image:
        image.getexif()
    assert infosink("infer", "x.jpg").exit_code == 0


def test_a_dark_drawing_on_light_paper_is_noted(infosink: Run, folder: Path) -> None:
    Image.new("L", (6, 6), 255).save(folder / "paper.png")
    Image.new("L", (6, 6), 0).save(folder / "board.png")
    result = infosink("infer", "paper.png", "board.png")
    assert result.exit_code == 0
    assert "paper.png: " in result.stderr
    assert "--invert" in result.stderr
    assert "board.png" not in result.stderr


def test_a_file_that_is_no_image_is_named(infosink: Run, folder: Path) -> None:
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("a seven")
    Image.new("I;16", (6, 6)).save(folder / "deep.png")
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    Image.effect_noise((64, 64), 50).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:2000])
    for name, words in {
        "missing.png": "not a file",
        "x" * 300 + ".png": "not a file",
        "empty.png": "empty",
        "text.png": "not an image",
        "deep.png": "8 bits",
        "huge.png": "make it smaller",
        "cut.png": "cannot be read",
    }.items():
        result = infosink("infer", name)
        assert result.exit_code == 1, name
        assert result.stderr.startswith(f"Error: {name} ")
        assert words in result.stderr


def test_points_are_no_images_to_infer_from(infosink: Run, seven: np.ndarray) -> None:
    result = infosink("infer", "seven.png", "--model", "points")
    assert result.exit_code == 1
    assert "points" in result.stderr


# traverse


def test_a_traversal_changes_one_style_and_nothing_else(infosink: Run, folder: Path, client: Client) -> None:
    result = infosink("traverse", "--style-index", "2", "--steps", "3", "--seed", "1", "-o", "x.png", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["values"] == [-1, 0, 1]
    # Two categories bear the label 1: a row shows one of them.
    assert report["categories"] == [0, 1, 3]
    with Image.open(folder / "x.png") as picture:
        pixels = np.asarray(picture)
    left, top = pixels.shape[1] - (2 + 3 * 50), pixels.shape[0] - (2 + 3 * 50)
    assert left > 0
    assert top > 0
    # Something is written left of the rows and above the columns.
    assert (pixels[top:, :left] < 128).any()
    assert (pixels[:top, left:] < 128).any()
    for row, category in enumerate(report["categories"]):
        for column, value in enumerate(report["values"]):
            expected = client.sample(1, category=category, style=[0, value], seed=1, shared_noise_index=0)
            y, x = top + 2 + row * 50, left + 2 + column * 50
            assert np.array_equal(pixels[y : y + 48 : 8, x : x + 48 : 8], expected.samples[0, ..., 0])


def test_a_traversal_of_chosen_rows_at_a_chosen_style(infosink: Run, folder: Path, client: Client) -> None:
    arguments = ["--category", "2", "--category", "1", "--style", "0.5", "--style", "-0.5", "--steps", "2"]
    result = infosink("traverse", *arguments, "--seed", "1", "-o", "x.png", "--json")
    assert json.loads(result.stdout)["categories"] == [2, 1]
    with Image.open(folder / "x.png") as picture:
        pixels = np.asarray(picture)
    expected = client.sample(1, category=1, style=[1, -0.5], seed=1, shared_noise_index=0)
    assert np.array_equal(pixels[-50:-2:8, -50:-2:8], expected.samples[0, ..., 0])


def test_a_traversal_of_a_label_that_no_category_bears_is_refused(infosink: Run) -> None:
    result = infosink("traverse", "--label", "5", "-o", "x.png")
    assert result.exit_code == 4
    assert '"7"' in result.stderr
    # Each step asks for it, and it is one mistake.
    assert len(result.stderr.splitlines()) == 1


# models


def test_models_are_listed(infosink: Run, client: Client) -> None:
    text = infosink("models").stdout
    for word in ("images", "points", "0 1 7", "6 x 6, grey", "CPU", client.model().model.checkpoint_sha256[:12]):
        assert word in text
    listed = json.loads(infosink("models", "--json").stdout)["models"]
    assert [served["model"]["name"] for served in listed] == ["images", "points"]


def test_one_model_is_shown_whole(infosink: Run, client: Client) -> None:
    text = infosink("models", "images").stdout
    for word in ("0.890", "0.960", "slant, rank correlation 0.91", client.model().model.checkpoint_sha256):
        assert word in text
    served = json.loads(infosink("models", "images", "--json").stdout)
    assert served["infers_codes"] is True
    assert [category["label"] for category in served["model"]["latent_space"]["categories"]] == ["0", "1", "1", "7"]
    assert infosink("models", "mnist").exit_code == 4


def test_agreement_is_shown_where_it_was_measured(infosink: Run, careless: Start) -> None:
    """Of the two categories one was judged, and never took its label."""
    assert "agreement" not in infosink("models", "images").stdout

    def judged(served: v1.ServedModel) -> None:
        served.model.latent_space.categories[1].agreement = 0

    server = careless(describe=judged)
    heading, first, second = infosink("models", "m", "--server", server).stdout.splitlines()[10:13]
    assert re.search(r"recovery +agreement *$", heading)
    assert re.search(r"^ *0 .* 0\.000 +- *$", first)
    assert re.search(r"^ *1 .* 0\.000 +0\.000 *$", second)
    latent_space = json.loads(infosink("models", "m", "--json", "--server", server).stdout)["model"]["latent_space"]
    assert [category.get("agreement") for category in latent_space["categories"]] == [None, 0]


def test_a_card_is_printed_as_it_was_written(infosink: Run, careless: Start) -> None:
    card = "# Digits\n\n\tinfosink-serve\n\n* [red]:cat:\x1b[31m &#x202e;\u202e *seven*\n"
    server = careless(card=card)
    for arguments in (["--card"], ["m", "--card"]):
        printed = infosink("models", *arguments, "--server", server).stdout
        assert printed == "# Digits\n\n    infosink-serve\n\n* [red]:cat: [31m &#x202e;  *seven*\n"
        assert json.loads(infosink("models", *arguments, "--json", "--server", server).stdout)["card"] == card
    assert "card: infosink models m --card\n" in infosink("models", "m", "--server", server).stdout
    assert json.loads(infosink("models", "m", "--json", "--server", server).stdout)["card"] == card
    with Client(server) as client:
        assert client.card() == card


def test_a_model_without_a_card_says_so(infosink: Run) -> None:
    result = infosink("models", "--card")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the model images has no card")
    assert "card: none\n" in infosink("models", "points").stdout
    assert json.loads(infosink("models", "--card", "--json").stdout)["card"] == ""
    assert infosink("models", "mnist", "--card").exit_code == 4


def test_the_servers_text_is_printed_as_it_is(infosink: Run, careless: Start) -> None:
    def colourful(served: v1.ServedModel) -> None:
        served.model.data_set = "[red]:cat:\x1b[31m"
        served.model.latent_space.categories[0].label = ":cat:"
        served.model.latent_space.styles[0].meaning = ":dog:"

    server = careless(describe=colourful)
    for arguments in ([], ["m"]):
        text = infosink("models", *arguments, "--server", server).stdout
        assert "[red]:cat: [31m" in text
        assert ":dog:" in text
        assert ":cat:" in text.replace("[red]:cat:", "")


def test_an_inferred_label_is_printed_as_it_is(infosink: Run, careless: Start, seven: np.ndarray, folder: Path) -> None:
    def colourful(served: v1.ServedModel) -> None:
        served.model.latent_space.categories[0].label = ":cat:"

    (folder / "seven.png").rename(folder / ":dog:.png")
    text = infosink("infer", ":dog:.png", "--server", careless(describe=colourful)).stdout
    assert ":dog:.png: label :cat: (category 0" in text
    assert text.count(":cat:") == 2


def test_labels_are_listed_in_the_order_of_their_numbers(infosink: Run, careless: Start) -> None:
    labels = ["b", "10", "007", "7", "9" * 5000, "a", "0"]

    def describe(served: v1.ServedModel) -> None:
        del served.model.latent_space.categories[:]
        for label in labels:
            served.model.latent_space.categories.add(label=label)

    server = careless(describe=describe)
    assert " 0 007 7 10 " in infosink("models", "--server", server).stdout
    # The long one is not written beside its row in full.
    assert infosink("traverse", "--server", server, "-o", "x.png").exit_code == 0
    with Image.open("x.png") as picture:
        assert picture.width < 2000
