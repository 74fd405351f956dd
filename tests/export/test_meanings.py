"""What an evaluation found reaches the files of that very checkpoint, and whoever asks a server for them."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from google.protobuf.json_format import Parse
from infosink.clients.command import main as infosink
from infosink.export.meanings import Meanings, plain_meanings, read_meanings
from infosink.export.metadata import latent_space_message, metadata
from infosink.serving.models.model_file import describe
from infosink.serving.models.served_model import load_model
from infosink.training.evaluation.record import Evaluation, EvaluationError
from infosink.training.run_directory import RunDirectory
from infosink.training.trained_model import TrainedModel, load_trained_model
from infosink.v1.model_pb2 import LatentSpace, Style

SLANT = {
    "name": "slant",
    "meaning": "slant, partial rank correlation 0.91",
    "correlation": {},
    "partial_correlation": {},
}
NOT_FOUND = {"name": "style 2", "meaning": "", "correlation": {}, "partial_correlation": {}}


def evaluation(model: TrainedModel) -> Evaluation:
    """Two styles, of which one has a meaning; the agreement of every category that has a label but the first."""
    categories: list[dict[str, Any]] = [
        {"label": each.label, "label_share": each.label_share, "share": each.sample_share, "recovery": each.recovery}
        for each in model.categories
    ]
    for index, category in enumerate(categories):
        if index and category["label"]:
            category["agreement"] = 1 - index / 100
    return Evaluation(
        checkpoint_sha256=model.checkpoint_sha256,
        run=model.configuration.to_mapping() | {"iteration": model.iteration},
        split="test",
        samples=100,
        seed=0,
        measures={"agreement.mean": 0.9},
        categories=categories,
        styles=[SLANT, NOT_FOUND],
        environment={"machine": "any"},
    )


def expected_agreement(model: TrainedModel) -> list[float | None]:
    return [1 - index / 100 if index and category.label else None for index, category in enumerate(model.categories)]


def properties(file: Path) -> dict[str, str]:
    return {entry.key.removeprefix("infosink."): entry.value for entry in onnx.load(file).metadata_props}


def described(file: Path) -> LatentSpace:
    return Parse(properties(file)["latent_space"], LatentSpace())


def agreement(latent_space: LatentSpace) -> list[float | None]:
    return [each.agreement if each.HasField("agreement") else None for each in latent_space.categories]


@pytest.fixture(scope="module")
def styled_run(train_on_gaussians: Callable[..., Path]) -> Path:
    """A run with two styles and an evaluation."""
    run = train_on_gaussians(iterations=1, batch_size=16, categories=3, styles=2)
    model = load_trained_model(RunDirectory.open(run))
    (run / "evaluation.json").write_text(evaluation(model).to_json())
    return run


@pytest.fixture(scope="module")
def finished(styled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The export of that run, in int8 and with notes, where what only the evaluation needs is not installed."""
    notes = tmp_path_factory.mktemp("notes") / "notes.md"
    notes.write_text("Made for *this test*.")
    code = (
        "import sys\n"
        "for name in ('scipy', 'sklearn', 'matplotlib'): sys.modules[name] = None\n"
        "from infosink.export.command import main; main()"
    )
    command = [sys.executable, "-c", code, styled_run, "--weights", "int8", "--card-notes", notes]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def address(finished: subprocess.CompletedProcess[str], styled_run: Path, start_server: Callable) -> str:
    assert finished.returncode == 0, finished.stderr
    model = load_model(
        styled_run / "gen.onnx", name="styled", encoder_path=None, device="cpu", threads=1, stream_samples=1000
    )
    address: str = start_server(model).address
    return address


def test_the_table_shows_what_the_codes_mean(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    heading = lines.index("category  label         share of it  of the data  read back  agreement")
    ends = [re.search(r"% +(\S+)$", line) for line in lines[heading + 1 : heading + 4]]
    assert [end and end[1] for end in ends] == ["-", "99.0%", "98.0%"]
    styles = lines.index("   style  name          meaning")
    assert lines[styles + 1 : styles + 4] == [
        "       1  slant         slant, partial rank correlation 0.91",
        "       2  style 2       none found",
        "",
    ]
    assert "plain names" not in finished.stdout


def test_the_summary_says_what_the_meanings_were_measured_on(finished: subprocess.CompletedProcess[str]) -> None:
    measured = "Agreement and the meanings of styles were measured by infosink-evaluate on 100 samples, "
    assert f"{measured}beside real ones of the test split." in finished.stdout.splitlines()


@pytest.mark.parametrize("file", ["gen.onnx", "q.onnx"])
def test_both_files_state_it(finished: subprocess.CompletedProcess[str], styled_run: Path, file: str) -> None:
    latent_space = described(styled_run / file)
    assert agreement(latent_space) == [None, 0.99, 0.98]
    assert list(latent_space.styles) == [
        Style(name="slant", meaning="slant, partial rank correlation 0.91"),
        Style(name="style 2"),
    ]


@pytest.mark.parametrize("file", ["gen.onnx", "q.onnx"])
def test_both_files_say_how_weights_are_stored_and_what_that_costs(
    finished: subprocess.CompletedProcess[str], styled_run: Path, file: str
) -> None:
    found = properties(styled_run / file)
    assert found["weights"] == "int8"
    loss = json.loads(found["parity"])["rounding"]
    assert (loss["weights"], loss["samples"], loss["unit"]) == ("int8", 1000, "units of the data")
    assert 0 < loss["sample_mean"] < loss["sample_largest"] < 0.1
    assert 0 < loss["category_probability"] < 0.1
    (line,) = (line for line in finished.stdout.splitlines() if line.startswith("Weights stored as int8. "))
    assert f"generated ones move by {loss['sample_mean']:g} units of the data on average" in line
    assert (styled_run / file).stat().st_size < 1e6


@pytest.mark.parametrize("file", ["gen.onnx", "q.onnx"])
def test_both_files_state_their_content(
    finished: subprocess.CompletedProcess[str], styled_run: Path, file: str, states_its_content: Callable[[Path], bool]
) -> None:
    assert finished.returncode == 0, finished.stderr
    assert states_its_content(styled_run / file)


def test_the_card_tells_of_them(finished: subprocess.CompletedProcess[str], styled_run: Path) -> None:
    assert finished.returncode == 0
    card = properties(styled_run / "gen.onnx")["card"]
    assert "| agreement, mean over labels | ↑ | 90.00% | – |" in card
    assert "| 1 | slant | slant, partial rank correlation 0.91 |" in card
    assert "\n## Weights\n\nWeights stored as int8. Against float32, over 1,000 samples: " in card
    assert card.endswith("\n## Notes\n\nMade for *this test*.\n")
    assert "- torch: 2." in card
    assert str(styled_run) not in card


def test_a_server_and_its_clients_pass_it_on(address: str) -> None:
    def ask(*arguments: str) -> str:
        result = CliRunner().invoke(infosink, ["models", *arguments, "--server", address])
        assert result.exit_code == 0, result.output
        return result.stdout

    text = ask("styled")
    assert re.search(r"recovery +agreement", text)
    assert re.search(r"^ *1 .* 0\.990 *$", text, re.MULTILINE)
    assert re.search(r"^ *1 +slant +slant, partial rank correlation 0\.91 *$", text, re.MULTILINE)
    assert re.search(r"^ *2 +style 2 +none found *$", text, re.MULTILINE)
    assert "correlation 0.91; " in ask()
    latent_space = json.loads(ask("styled", "--json"))["model"]["latent_space"]
    assert [category.get("agreement") for category in latent_space["categories"]] == [None, 0.99, 0.98]
    assert latent_space["styles"][0] == {"name": "slant", "meaning": "slant, partial rank correlation 0.91"}


# What is read, of images


def written(run: Path, model: TrainedModel, **changes: Any) -> Path:
    record = json.loads(evaluation(model).to_json()) | changes
    (run / "evaluation.json").write_text(json.dumps(record))
    return run


def test_meanings_of_images_are_read(mnist: TrainedModel, tmp_path: Path) -> None:
    found = read_meanings(written(tmp_path, mnist), mnist)
    assert found.agreement == expected_agreement(mnist)
    assert found.agreement.count(None) == 2
    assert found.styles == [Style(name="slant", meaning="slant, partial rank correlation 0.91"), Style(name="style 2")]
    assert read_meanings(written(tmp_path, mnist, styles=[]), mnist).styles == plain_meanings(mnist).styles


def test_without_an_evaluation_the_user_is_told_how_to_make_one(
    mnist: TrainedModel, gaussians: TrainedModel, tmp_path: Path
) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    with pytest.raises(EvaluationError, match=f"not been evaluated; infosink-evaluate '{run}' before exporting"):
        read_meanings(run, mnist)
    assert read_meanings(run, gaussians) == plain_meanings(gaussians) == Meanings([None] * 25, [])


CATEGORY = {"label": "9", "agreement": 0.5}
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "too few styles": ({"styles": [SLANT]}, "it has 1 styles, the model 2"),
    "too many styles": ({"styles": [SLANT] * 3}, "it has 3 styles, the model 2"),
    "style no object": ({"styles": [SLANT, "style 2"]}, "a style is no object"),
    "style without a name": ({"styles": [SLANT, {"meaning": ""}]}, "the name of a style"),
    "blank name": ({"styles": [SLANT, NOT_FOUND | {"name": " "}]}, "the name of a style is blank"),
    "long name": ({"styles": [SLANT, NOT_FOUND | {"name": "ü" * 65}]}, "the name of a style .* 128 bytes"),
    "name of lines": ({"styles": [SLANT, NOT_FOUND | {"name": "a\nb"}]}, "the name of a style is not one line"),
    "name not UTF-8": ({"styles": [SLANT, NOT_FOUND | {"name": "\ud800"}]}, "the name of a style is not one line"),
    "long meaning": ({"styles": [SLANT, SLANT | {"meaning": "x" * 129}]}, "the meaning of a style .* 128 bytes"),
    "blank meaning": ({"styles": [SLANT, SLANT | {"meaning": " "}]}, "the meaning of a style is blank"),
    "too few categories": ({"categories": [CATEGORY]}, "its categories are not the model's"),
    "category no object": ({"categories": ["9"] * 10}, "a category is no object"),
    "wrong type": ({"seed": "0"}, "its seed is no int"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_evaluation_is_refused(mnist: TrainedModel, tmp_path: Path, case: str) -> None:
    changes, complaint = DAMAGED[case]
    with pytest.raises(EvaluationError, match=f"damaged: {complaint}.*; make it again with infosink-evaluate$"):
        read_meanings(written(tmp_path, mnist, **changes), mnist)


@pytest.mark.parametrize("value", [1.01, -0.01, float("nan"), float("inf"), "0.5", True, None])
def test_an_agreement_that_is_no_share_is_refused(mnist: TrainedModel, tmp_path: Path, value: object) -> None:
    categories = evaluation(mnist).categories
    categories[3]["agreement"] = value
    with pytest.raises(EvaluationError, match=r"damaged: an agreement is not in \[0, 1\]"):
        read_meanings(written(tmp_path, mnist, categories=categories), mnist)


def test_an_evaluation_of_another_checkpoint_is_refused(mnist: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is of another checkpoint than the run's: make it again"):
        read_meanings(written(tmp_path, mnist, checkpoint_sha256="0" * 64), mnist)


def test_an_agreement_with_another_label_is_refused(mnist: TrainedModel, tmp_path: Path) -> None:
    first, *others = mnist.categories
    renamed = dataclasses.replace(mnist, categories=[dataclasses.replace(first, label="zero"), *others])
    with pytest.raises(EvaluationError, match="its categories are not the model's"):
        read_meanings(written(tmp_path, mnist), renamed)


def test_a_server_takes_the_longest_meanings_of_the_most_styles(gaussians: TrainedModel, tmp_path: Path) -> None:
    settings = dataclasses.replace(gaussians.configuration, styles=100)
    model = dataclasses.replace(gaussians, configuration=settings)
    longest = {"name": "ü" * 64, "meaning": "ü" * 64}
    meanings = read_meanings(written(tmp_path, model, styles=[SLANT | longest] * 100), model)
    message = latent_space_message(model, meanings)
    description = metadata(model, message, "generator", name="m", licence="", parity_json="{}")
    assert describe(description, tmp_path).latent_space.styles[99] == Style(**longest)
