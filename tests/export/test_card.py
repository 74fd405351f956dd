"""The model card: what it tells, what it leaves as it was written, and what it refuses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from infosink.export.card import model_card, read_notes, read_origin
from infosink.export.command import main
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel
from infosink.export.meanings import Meanings, plain_meanings
from infosink.export.metadata import latent_space_message, metadata
from infosink.serving.models.model_file import describe
from infosink.training.evaluation.record import Evaluation
from infosink.training.labelling import NamedCategory
from infosink.training.run_directory import RunDirectory
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import Style
from markdown_it import MarkdownIt


def card_of(model: TrainedModel, meanings: Meanings | None = None, **told: Any) -> str:
    latent_space = latent_space_message(model, meanings or plain_meanings(model))
    return model_card(model, latent_space, **{"name": "m", "licence": ""} | told)


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def html(card: str) -> str:
    """The card as people see it."""
    return str(MarkdownIt().enable("table").render(card))


def stored_card(path: Path) -> str:
    (card,) = (entry.value for entry in onnx.load(path).metadata_props if entry.key == "infosink.card")
    return card


EVALUATED = {
    "agreement.mean": 0.9696,
    "agreement.worst": 0.777,
    "quality.coverage": 0.3905,
    "quality.spread": 1.07,
    "quality.spread_within_category": 0.74,
    "plan.perplexity": 11.9,
}


def evaluation(model: TrainedModel) -> Evaluation:
    return Evaluation(
        checkpoint_sha256=model.checkpoint_sha256,
        run=model.configuration.to_mapping() | {"iteration": model.iteration},
        split="test",
        samples=10_000,
        seed=0,
        classifier={"sha256": "ab" * 32, "test_accuracy": 0.996},
        measures=EVALUATED,
        reference={"quality.coverage": 0.9427},
        notes=["A note of the *evaluation*."],
        environment={},
    )


def test_an_export_carries_the_card_of_its_model(mnist: TrainedModel, mnist_files: ExportedModel) -> None:
    card = stored_card(mnist_files.generator_path)
    assert card.startswith("# mnist\n")
    assert "28x28 grey images" in card
    assert mnist.checkpoint_sha256 in card
    assert "infosink sample --label 9 --count 16" in section(card, "Use")
    data = section(card, "Data")
    assert "512 training, 10,000 test" in data
    assert "train-images-idx3-ubyte: `ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db`" in html(
        data
    ).replace("<code>", "`").replace("</code>", "`")
    training = section(card, "Training")
    assert "neural-duals, ε = 0.05, λ = 0.05" in training
    assert "iterations: 1 of 1" in training
    for row in ("| iterations | 1 | 24200 |", "| batch_size | 8 | 128 |", "| dual_steps | 1 | 5 |"):
        assert row in training
    assert "| seed |" not in training
    assert section(card, "Evaluation").strip() == "Not evaluated: `infosink-evaluate RUN` before exporting does it."
    assert "| 1 | 8 | 90.0% | 11.1% | 1.0% | – |" in section(card, "Categories")
    assert "| 1 | style 1 | none found |" in section(card, "Styles")
    assert section(card, "Weights").strip() == "Stored as float32, as they were trained."
    limits = section(card, "Limits")
    assert "No category bears, so that nobody can ask for: 0." in limits
    assert "how often was not measured" in limits
    assert "By how much was not measured." in limits
    assert "LicenseRef-Unstated" in section(card, "Licence")
    assert "## Notes" not in card
    assert not [entry for entry in onnx.load(mnist_files.encoder_path).metadata_props if entry.key == "infosink.card"]


def test_points_tell_where_they_come_from(gaussians_files: ExportedModel) -> None:
    card = stored_card(gaussians_files.generator_path)
    assert card.startswith("# dots\n")
    assert "points in the plane" in card
    assert "- sigma: 0.05" in section(card, "Data")
    assert "- torch: 2." in section(card, "Training")
    assert "- threads: 1" in section(card, "Training")
    assert "- time: " in section(card, "Training")
    assert "MIT" in section(card, "Licence")
    assert "## Styles" not in card
    assert "infosink infer" not in card
    assert "pixels" not in section(card, "Limits")


def test_an_evaluation_is_told_with_what_it_is_of(mnist: TrainedModel) -> None:
    style = Style(name="slant", meaning="slant, partial rank correlation 0.91")
    meanings = Meanings([None, *[0.5] * 9], [style, Style(name="style 2")])
    card = card_of(mnist, meanings, evaluation=evaluation(mnist))
    told = section(card, "Evaluation")
    assert "10,000 generated samples and real ones of the test split, with its seed 0." in told
    assert "is right on 99.60% of the test images" in told
    assert "| agreement, worst label | ↑ | 77.70% | – |" in told
    assert "| coverage | ↑ | 39.05% | 94.27% |" in told
    assert "perplexity" not in told
    assert "A note of the *evaluation*." in html(told)
    assert "| 1 | 8 | 90.0% | 11.1% | 1.0% | 50.0% |" in section(card, "Categories")
    assert "| 1 | slant | slant, partial rank correlation 0.91 |" in section(card, "Styles")
    limits = section(card, "Limits")
    assert "3.0% on average over labels and 22.3% of the worst label do, as" in limits
    assert "is 1.07 over all samples and 0.74 within a category" in limits


def test_a_baseline_is_called_one(mnist: TrainedModel) -> None:
    settings = dataclasses.replace(mnist.configuration, lambda_=0.0)
    assert "without the information term" in card_of(dataclasses.replace(mnist, configuration=settings))
    assert "without the information term" not in card_of(mnist)


HOSTILE = "a|b](http://x) <img src=x> **c** `d` &amp; # \x1b[2J\n## Licence"


def test_what_comes_from_files_stays_text(mnist: TrainedModel) -> None:
    first, *others = mnist.categories
    model = dataclasses.replace(mnist, categories=[dataclasses.replace(first, label=HOSTILE), *others])
    style = Style(name="[s](http://y)", meaning="~~m~~ ![i](j)")
    card = card_of(model, Meanings([None] * 10, [style, style]), licence="<b>free</b>")
    shown = html(card)
    for active in ("<img", "<a ", "<strong>", "<em>", "<s>", "<b>", "\x1b"):
        assert active not in shown
    assert "<td>a|b](http://x) &lt;img src=x&gt; **c** `d` &amp;amp; # �[2J�## Licence</td>" in shown
    assert "<td>[s](http://y)</td>" in shown
    assert "&lt;b&gt;free&lt;/b&gt;" in shown
    assert card.count("\n## Licence\n") == 1
    assert "infosink sample --label 8" in card


def test_notes_are_the_authors_own_markdown(mnist: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes("Trained for *fun*.\r\n\r\n- by ü\n".encode())
    card = card_of(mnist, notes=read_notes(path))
    assert section(card, "Notes").strip() == "Trained for *fun*.\n\n- by ü"


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"x" * 65_537, "is longer than 65,536 bytes, the limit for notes: shorten it"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a\x1b[2J", "has control characters"),
        (b"a\x00", "has control characters"),
        (None, "No such file or directory; name a text file with --card-notes"),
    ],
    ids=["long", "not UTF-8", "escape", "null", "missing"],
)
def test_notes_that_cannot_be_used_are_refused_before_any_work(
    gaussians_run: Path, tmp_path: Path, contents: bytes | None, complaint: str
) -> None:
    path = tmp_path / "notes.md"
    if contents is not None:
        path.write_bytes(contents)
    result = CliRunner().invoke(main, [str(gaussians_run), "-o", str(tmp_path), "--card-notes", str(path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.onnx"))


def test_the_longest_notes_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes(b"x" * 65_536)
    assert len(read_notes(path)) == 65_536


def test_a_server_takes_the_card_of_the_most_codes(mnist: TrainedModel, tmp_path: Path) -> None:
    settings = dataclasses.replace(mnist.configuration, categories=1000, styles=100)
    categories = [NamedCategory("*" * 128, 0.5, 0.001, 0.5)] * 1000
    model = dataclasses.replace(mnist, configuration=settings, categories=categories)
    meanings = Meanings([0.5] * 1000, [Style(name="*" * 128, meaning="|" * 128)] * 100)
    card = card_of(model, meanings, notes="x" * 65_536, evaluation=evaluation(mnist))
    assert "... and 900 more." in card
    few = plain_meanings(mnist)
    properties = metadata(
        mnist, latent_space_message(mnist, few), "generator", name="m", licence="", parity_json="{}", card=card
    )
    describe(properties, tmp_path)
    assert len(card.encode()) < 2**18
    with pytest.raises(ExportError, match=r"takes 3\d\d,\d{3} bytes and a server takes 262,144: shorten the notes"):
        card_of(model, meanings, notes="x" * 250_000)


def test_the_time_of_training_is_that_of_its_iterations(gaussians_run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((gaussians_run / "config.json").read_bytes())
    run = RunDirectory.open(tmp_path)
    assert read_origin(run, 20).seconds is None
    for iteration, seconds in ((10, 60.0), (20, 30.0), (30, 500.0)):
        run.append_metrics({"iteration": iteration, "seconds": seconds})
    assert read_origin(run, 20).seconds == 90
    run.append_metrics({"iteration": 15})
    assert read_origin(run, 20).seconds is None


def test_an_environment_that_says_nothing_is_left_out(gaussians_run: Path, tmp_path: Path) -> None:
    values = json.loads((gaussians_run / "config.json").read_text())
    path, run = tmp_path / "config.json", RunDirectory(tmp_path)
    assert read_origin(RunDirectory(gaussians_run), 3).environment["threads"] == "1"
    for environment in (None, [], "x", {"torch": [1]}):
        path.write_text(json.dumps(values | {"environment": environment}))
        assert read_origin(run, 1).environment == {}


def test_a_damaged_log_hinders_no_export(gaussians_run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((gaussians_run / "config.json").read_bytes())
    (tmp_path / "metrics.jsonl").write_text("{\n")
    origin = read_origin(RunDirectory(tmp_path), 3)
    assert (origin.seconds, origin.environment["threads"]) == (None, "1")
