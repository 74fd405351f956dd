"""What the report says, and how an evaluation is kept."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from infosink.training.configuration import preset_configuration
from infosink.training.evaluation.measures import GROUPS, MEASURES
from infosink.training.evaluation.pictures import Picture
from infosink.training.evaluation.record import Evaluation, EvaluationError, read_evaluation, write_files
from infosink.training.evaluation.report import markdown

NO_FLOAT_HOLDS_IT = 10**400
RUN = preset_configuration("mnist", "quick").to_mapping() | {"iteration": 900}
BASELINE = {
    "run": RUN | {"lambda": 0.0},
    "checkpoint_sha256": "0" * 64,
    "measures": {"agreement.mean": 0.1, "codes.recovery": 0.11},
    "styles": [],
}
STYLE = {
    "name": "slant",
    "meaning": "slant, partial rank correlation 0.91",
    "correlation": {"slant": 0.9},
    "partial_correlation": {"slant": 0.91},
    "constancy": 0.99,
}
EVALUATION = Evaluation(
    checkpoint_sha256="ab" * 32,
    run=RUN,
    data={"training_samples": 60_000, "test_samples": 10_000, "source": "files"},
    split="test",
    samples=10_000,
    seed=0,
    classifier={"sha256": "cd" * 32, "test_accuracy": 0.9942},
    counts={"quality": {"generated_samples": 10_000, "real_for_spread": 2_000}},
    measures={"agreement.mean": 0.99754, "agreement.worst": 0.995, "quality.frechet_distance": 12.346},
    reference={"agreement.mean": 0.9941, "quality.frechet_distance": 0.3},
    by_label={"0": 1.0, "a|b": 0.995},
    confusion=[[10, 0], [1, 199]],
    categories=[{"label": "a|b", "label_share": 0.98, "share": 0.5, "recovery": 1.0, "agreement": 0.995}],
    styles=[STYLE],
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


def test_the_report_says_which_data_and_how_many_samples():
    report = markdown(EVALUATION, "run", [])
    assert "The data has 60,000 training, 10,000 test samples. Real samples of the test split" in report
    quality = report[report.index("## Quality") : report.index("## Agreement by label")]
    assert "Counts: generated samples 10,000, real for spread 2,000." in quality
    points = dataclasses.replace(EVALUATION, data={"training_samples": 50_000, "test_samples": 10_000, "sigma": 0.05})
    assert "50,000 training, 10,000 test samples, σ = 0.05." in markdown(points, "run", [])


def test_the_report_says_what_departs_from_the_preset():
    assert "mnist, preset quick: sinkhorn" in markdown(EVALUATION, "run", [])
    paper = RUN | {"preset": "paper"}
    report = markdown(dataclasses.replace(EVALUATION, run=paper), "run", [])
    assert "preset paper but for solver sinkhorn (there neural-duals), batch_size 100 (there 128), " in report
    assert "iterations 1000 (there 24200)" in report
    assert "preset mine, which is unknown" in markdown(
        dataclasses.replace(EVALUATION, run=RUN | {"preset": "mine"}), "", []
    )


def test_the_report_says_in_what_the_baseline_differs():
    report = markdown(EVALUATION, "run", [])
    assert "The baseline is of seed 0, iteration 900 of 1,000" in report
    assert "its settings differ in lambda 0.0 (here 0.05)." in report
    assert "no plain Sinkhorn GAN: its λ is 0, yet it learns by invariance 1 and listening 0.02." in report
    plain = BASELINE | {"run": RUN | {"lambda": 0.0, "noise": 3, "invariance": 0.0, "listening": 0.0, "seed": 4}}
    report = markdown(dataclasses.replace(EVALUATION, baseline=plain), "run", [])
    assert "is of seed 4" in report
    assert "noise 3 (here 88), lambda 0.0 (here 0.05), invariance 0.0 (here 1.0), listening 0.0 (here 0.02)." in report
    assert "no plain" not in report


def test_styles_that_were_compared_with_nothing_are_shown_without_correlations():
    unnamed = {"name": "style 1", "meaning": "", "correlation": {}, "partial_correlation": {}, "constancy": 0.5}
    report = markdown(dataclasses.replace(EVALUATION, styles=[unnamed]), "run", [])
    assert "| code | meaning | label constancy | variation ratio |" in report
    assert "| 1 | none found | 50.00% | – |" in report
    assert "rank correlation" not in report


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
        ({"run": {}}, "the iteration of its run is no int"),
        ({"run": {"iteration": 1}}, "its run has no such settings: settings are missing: dataset"),
        ({"samples": True}, "its samples is no int"),
        ({"measures": {"agreement.mean": True}}, "agreement.mean is no finite number"),
        ({"reference": {"agreement.mean": NO_FLOAT_HOLDS_IT}}, "agreement.mean is no finite number"),
        ({"by_label": {"a": float("nan")}}, r"an agreement is not in \[0, 1\]"),
        ({"confusion": [[1]] * 2}, "its confusion is no square table of ints"),
        ({"categories": [1]}, "a category is no object"),
        ({"categories": [{"label": "a", "recovery": 1.1}]}, r"a recovery is not in \[0, 1\]"),
        ({"styles": [1]}, "a style is no object"),
        ({"styles": [STYLE | {"correlation": {"slant": None}}]}, "the correlation of a style is no numbers"),
        ({"styles": [STYLE, STYLE | {"partial_correlation": {}}]}, "the partial_correlation of a style is no numbers"),
        ({"classifier": {}}, "the sha256 of its classifier is no str"),
        ({"counts": {"plan": 5}}, "its counts of plan are no ints"),
        ({"data": {"training_samples": "many"}}, "the training_samples of its data is no int"),
        ({"baseline": {}}, "the run of its baseline is no dict"),
        ({"baseline": BASELINE | {"run": {}}}, "the iteration of its run is no int"),
        ({"baseline": BASELINE | {"styles": [{}]}}, "the name of a style is no str"),
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


def test_writers_at_once_leave_a_whole_file_of_one_of_them(tmp_path: Path):
    contents = [bytes([writer]) * 1_000_000 for writer in range(4)]
    with ThreadPoolExecutor() as writers:
        list(writers.map(lambda content: write_files(tmp_path, {"evaluation.json": content}), contents * 3))
    assert (tmp_path / "evaluation.json").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path):
    write_files(tmp_path, {"evaluation.json": b"old"})
    (tmp_path / "evaluation").write_text("a file where a folder should be")
    with pytest.raises(EvaluationError, match="cannot write"):
        write_files(tmp_path, {"evaluation/samples.png": b"new", "evaluation.json": b"new"})
    assert (tmp_path / "evaluation.json").read_bytes() == b"old"
