"""What the report says, and how an evaluation is kept."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from infosink.training.configuration import preset_configuration
from infosink.training.evaluation.measures import GROUPS, MEASURES
from infosink.training.evaluation.pictures import Picture
from infosink.training.evaluation.record import Evaluation, EvaluationError, read_evaluation, write_files
from infosink.training.evaluation.report import markdown

RUN = preset_configuration("mnist", "quick").to_mapping() | {"iteration": 900}
BASELINE = {
    "run": RUN | {"lambda": 0.0},
    "checkpoint_sha256": "0" * 64,
    "measures": {"agreement.mean": 0.1, "codes.recovery": 0.11},
    "styles": [],
}
EVALUATION = Evaluation(
    checkpoint_sha256="ab" * 32,
    run=RUN,
    split="test",
    samples=10_000,
    seed=0,
    classifier={"sha256": "cd" * 32, "test_accuracy": 0.9942},
    measures={"agreement.mean": 0.99754, "agreement.worst": 0.995, "quality.frechet_distance": 12.346},
    reference={"agreement.mean": 0.9941, "quality.frechet_distance": 0.3},
    by_label={"0": 1.0, "a|b": 0.995},
    confusion=[[10, 0], [1, 199]],
    categories=[{"label": "a|b", "label_share": 0.98, "share": 0.5, "recovery": 1.0, "agreement": 0.995}],
    styles=[
        {
            "name": "slant",
            "meaning": "slant, rank correlation 0.91",
            "correlation": {"slant": 0.9},
            "partial_correlation": {"slant": 0.91},
            "constancy": 0.99,
        }
    ],
    notes=["Something <was> left out."],
    environment={"torch": "2.13.0"},
    baseline=BASELINE,
)


def test_the_report_begins_with_the_headline_beside_baseline_and_real_data():
    report = markdown(EVALUATION, "runs_1", [])
    headline = report[report.index("## Headline") : report.index("## Samples asked")]
    assert "|  | better | this run | baseline, λ = 0 | real data in its place |" in headline
    assert "| agreement, mean over labels | ↑ | 99.75% | 10.00% | 99.41% |" in headline
    assert "| agreement, worst label | ↑ | 99.50% | – | – |" in headline
    assert "| Fréchet distance | ↓ | 12.35 | – | 0.30 |" in headline
    assert "The worst label is a\\|b." in headline
    assert "iteration 900 of 1,000" in report
    assert "99.42% of the test images" in report


def test_every_measure_in_the_report_is_defined():
    everything = dataclasses.replace(EVALUATION, measures={measure.name: 0.5 for measure in MEASURES})
    report = markdown(everything, "run", [])
    for measure in MEASURES:
        assert measure.definition.replace("|", "\\|") in report, measure.name
    for title in GROUPS.values():
        assert f"## {title}\n" in report


def test_every_row_of_a_table_has_the_columns_of_its_heading():
    counted = 0
    for table in re.findall(r"(?:^\|.*\|\n)+", markdown(EVALUATION, "run", []), flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
        counted += 1
    assert counted >= 6


def test_pictures_notes_and_names_that_would_break_markdown():
    report = markdown(EVALUATION, "a\nb|c", [Picture("samples.png", "Samples by label.", b"")])
    assert report.startswith("# Evaluation of a�b\\|c\n")
    assert "![Samples by label.](evaluation/samples.png)" in report
    assert "- Something &lt;was> left out." in report


def test_the_names_of_measures_are_unique_and_lie_in_a_group():
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert {measure.group for measure in MEASURES} == set(GROUPS)


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    write_files(tmp_path, {"evaluation.json": EVALUATION.to_json().encode(), "evaluation/a.png": b"1"})
    assert read_evaluation(tmp_path) == EVALUATION
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "evaluation", "evaluation.json"]


def test_what_is_not_a_number_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(EVALUATION, measures={"agreement.mean": float("nan")}).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "infosink-evaluation-0"}, "is not of the format infosink-evaluation-1"),
        ({"measures": {"agreement.mean": "high"}}, "agreement.mean is no finite number"),
        ({"measures": {"agreement.median": 1.0}}, "unknown measure 'agreement.median'"),
        ({"styles": None}, "its styles is no list"),
        ({"samples": "many"}, "its samples is no int"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_foreign_or_damaged_evaluation_is_named(tmp_path, change, message):
    (tmp_path / "evaluation.json").write_text(json.dumps(json.loads(EVALUATION.to_json()) | change))
    with pytest.raises(EvaluationError, match=message):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("contents", ["", "{", "[" * 100_000, "[]", '{"format": "infosink-evaluation-1"}'])
def test_what_is_no_evaluation_at_all_is_named_too(tmp_path, contents):
    (tmp_path / "evaluation.json").write_text(contents)
    with pytest.raises(EvaluationError, match="make it again"):
        read_evaluation(tmp_path)


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path):
    write_files(tmp_path, {"evaluation.json": b"old"})
    (tmp_path / "evaluation").write_text("a file where a folder should be")
    with pytest.raises(EvaluationError, match="cannot write"):
        write_files(tmp_path, {"evaluation/samples.png": b"new", "evaluation.json": b"new"})
    assert (tmp_path / "evaluation.json").read_bytes() == b"old"
