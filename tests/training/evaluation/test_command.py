"""infosink-evaluate as a user runs it, on real runs of a few iterations."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.datasets.images import ImageDataset
from infosink.training.evaluation.command import evaluate
from infosink.training.evaluation.record import read_evaluation
from infosink.training.run_directory import RunDirectory
from infosink.training.trainer import Schedule, Trainer
from PIL import Image

SAMPLES = ("--samples", "200")
MAIN = "import sys; from infosink.training.evaluation.command import main; sys.argv[0] = 'infosink-evaluate'; main()"


class Silent:
    def iterated(self, iteration: int) -> None: ...

    def logged(self, record: dict[str, Any]) -> None: ...

    def forecast(self, seconds_per_iteration: float) -> None: ...


def trained(path: Path, name: str, data_directory: Path | None = None, **settings: Any) -> Path:
    options = {"data_directory": data_directory, "sigma": None, "channels": None, "hold_out": None}
    dataset = open_dataset(name, data_directory=data_directory)
    configuration = preset_configuration(name, "quick", iterations=2, **settings)
    run = RunDirectory.create(path)
    recorded = options | {"data_directory": data_directory and str(data_directory)}
    run.write_configuration(configuration, {"options": recorded, "facts": dataset.describe()})
    Trainer(run, configuration, dataset, torch.device("cpu")).train(Schedule(), Silent(), lambda: False)
    return path


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on eight Gaussians: two seeds, and one without the information term."""
    folder = tmp_path_factory.mktemp("points")
    return {
        name: trained(folder / name, "eight-gaussians", batch_size=32, **settings)
        for name, settings in {"a": {}, "b": {"seed": 1}, "baseline": {"lambda_": 0.0}}.items()
    }


@pytest.fixture
def run(points: dict[str, Path], tmp_path: Path) -> Path:
    """A run without an evaluation."""
    return Path(shutil.copytree(points["a"], tmp_path / "run", ignore=shutil.ignore_patterns("evaluation*")))


def write_digits(folder: Path, mnist_directory: Path, count: int) -> Path:
    """MNIST's first test images, in a folder for each label."""
    mnist = open_dataset("mnist", data_directory=mnist_directory)
    assert isinstance(mnist, ImageDataset)
    for index, (pixels, label) in enumerate(zip(*(part[:count] for part in mnist.test), strict=True)):
        directory = folder / str(int(label))
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(directory / f"{index:03d}.png")
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate, list(map(str, arguments)))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_points_are_evaluated_into_the_run_and_nothing_else_is_touched(run):
    before = files(run)
    done = call(run, *SAMPLES)
    assert done.exit_code == 0, done.output
    assert "modes found" in done.stdout
    assert "evaluation.md" in done.stdout
    assert "counting modes" in done.stderr
    after = files(run)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"evaluation.json", "evaluation.md", "evaluation/samples.png"}
    found = read_evaluation(run)
    assert found.checkpoint_sha256 == RunDirectory.open(run).read_checkpoint().sha256
    assert (found.samples, found.split, found.run["iteration"], found.run["lambda"]) == (200, "test", 2, 1.0)
    assert (found.data["training_samples"], found.data["test_samples"]) == (50_000, 10_000)
    assert found.counts["modes"] == found.counts["codes"] == {"generated_samples": 200}
    assert found.counts["clustering"] == {"real_samples": 10_000}
    assert found.counts["plan"] == {"minibatches": 5, "samples_each": 32}
    assert {"modes.reverse_kl", "codes.information", "plan.dual_gap"} <= set(found.measures)
    assert call(run, *SAMPLES).exit_code == 0
    assert files(run) == after


def test_a_baseline_is_shown_beside_and_evaluated_only_where_it_is_out_of_date(points, run, tmp_path):
    baseline = Path(shutil.copytree(points["baseline"], tmp_path / "baseline"))
    done = call(run, *SAMPLES, "--baseline", baseline)
    assert done.exit_code == 0, done.output
    assert "λ = 0" in done.stdout
    assert "baseline, λ = 0" in (run / "evaluation.md").read_text()
    theirs = read_evaluation(baseline)
    assert read_evaluation(run).baseline["measures"] == theirs.measures
    # One that was made of the same checkpoint, with the same options, is taken as it is.
    marked = dataclasses.replace(theirs, notes=["kept"])
    (baseline / "evaluation.json").write_text(marked.to_json())
    assert call(run, *SAMPLES, "--baseline", baseline).exit_code == 0
    assert read_evaluation(baseline).notes == ["kept"]
    # One of earlier versions or by another classifier is not.
    for stale in ({"environment": {"torch": "1.0"}}, {"classifier": {"sha256": "cd" * 32, "test_accuracy": 0.9}}):
        (baseline / "evaluation.json").write_text(dataclasses.replace(marked, **stale).to_json())
        assert call(run, *SAMPLES, "--baseline", baseline).exit_code == 0
        assert read_evaluation(baseline) == theirs


def test_an_evaluation_made_with_other_options_is_replaced_only_where_its_run_is_named(points, run, tmp_path):
    other = Path(shutil.copytree(points["b"], tmp_path / "an other", ignore=shutil.ignore_patterns("evaluation*")))
    assert call(other, "--samples", "300", "--seed", "5").exit_code == 0
    before = files(tmp_path)
    for arguments in ([run, "--baseline", other], ["--seeds", run, other]):
        refused = call(*arguments, *SAMPLES)
        assert refused.exit_code == 1
        assert "has an evaluation made with --samples 300, not 200; --seed 5, not 0" in refused.stderr
        assert f"replace it first with infosink-evaluate '{other}'" in refused.stderr
        assert "reading" not in refused.stderr
    assert files(tmp_path) == before
    assert call(run, "--samples", "300", "--seed", "5", "--baseline", other).exit_code == 0
    judged = dataclasses.replace(read_evaluation(other), inception_sha256="ef" * 32)
    (other / "evaluation.json").write_text(judged.to_json())
    refused = call(run, "--samples", "300", "--seed", "5", "--baseline", other)
    assert "made with --inception-weights of SHA-256 efefefefefef…, not none:" in refused.stderr
    assert call(other, *SAMPLES).exit_code == 0
    assert read_evaluation(other).samples == 200


def test_seeds_are_summed_up_after_evaluating_those_that_need_it(points, tmp_path):
    output = tmp_path / "tables" / "seeds.md"
    done = call("--seeds", points["a"], points["b"], *SAMPLES, "--output", output)
    assert done.exit_code == 0, done.output
    assert "deviation" in done.stdout
    assert "run 2 of 2" in done.stderr
    both = [read_evaluation(points[name]).measures["quality.spread"] for name in ("a", "b")]
    summed = json.loads(output.with_suffix(".json").read_text())["measures"]["quality.spread"]
    assert (summed["minimum"], summed["maximum"]) == (min(both), max(both))
    assert "| spread | → 1 |" in output.read_text()
    assert call("--seeds", points["a"], points["b"], *SAMPLES, "--output", output).exit_code == 0  # its own it may
    again = call("--seeds", points["a"], points["b"], *SAMPLES)
    assert again.exit_code == 0
    assert again.stderr == ""


@pytest.mark.parametrize("name", ["config.md", "evaluation.md"])
def test_the_numbers_of_a_table_replace_no_file_of_a_run(points, run, name):
    (run / "evaluation.json").write_text("{}")
    kept = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    done = call("--seeds", points["a"], points["b"], *SAMPLES, "--output", run / name)
    assert done.exit_code == 1
    assert f"{Path(name).stem}.json, where the numbers of" in done.stderr
    assert "name another --output" in done.stderr
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == kept


def test_runs_that_differ_in_more_than_the_seed_are_refused_before_any_work(points):
    done = call("--seeds", points["b"], points["baseline"])
    assert done.exit_code == 1
    assert "differ in more than the seed: lambda 1.0 and 0.0" in done.stderr
    assert "reading" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere holds no run: it has no config.json"),
        (["{run}", "--samples", "99"], 2, "99 is not in the range 100<=x<=100000"),
        (["{run}", "--samples", "100001"], 2, "not in the range"),
        (["{run}", "{run}"], 2, "sum several up with --seeds"),
        (["--seeds", "{run}"], 1, "--seeds needs two runs at least"),
        (["--seeds", "{run}", "{run}"], 1, "have the same seed 0"),
        (["{run}", "--output", "a.md"], 2, "--output belongs to --seeds"),
        (["--seeds", "{run}", "{run}", "--output", "a.txt"], 2, "must end in .md"),
        (["--seeds", "{run}", "{run}", "--baseline", "{run}"], 2, "--baseline is for one run"),
        (["{run}", "--baseline", "nowhere"], 1, "nowhere holds no run"),
        (["{run}", "--inception-weights", "{run}/config.json"], 1, "has points, not images"),
        (["{run}", "--inception-weights", "nowhere.pth"], 2, "does not exist"),
        (["{run}", "--split", "training"], 2, "'training' is not one of"),
        ([], 2, "Missing argument"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(run, arguments, code, message):
    before = files(run)
    done = call(*(argument.format(run=run) for argument in arguments))
    assert done.exit_code == code
    assert message in done.stderr
    assert files(run) == before


def test_a_run_without_a_checkpoint_says_so(run):
    (run / "checkpoint.safetensors").unlink()
    done = call(run)
    assert done.exit_code == 1
    assert "has not reached its first checkpoint" in done.stderr


def test_a_baseline_on_other_data_is_refused(run, tmp_path):
    other = trained(tmp_path / "other", "gaussians", batch_size=32)
    done = call(run, "--baseline", other)
    assert done.exit_code == 1
    assert "were trained on different data" in done.stderr


def test_validation_needs_images_that_were_held_out(tmp_path, mnist_directory):
    folder = write_digits(tmp_path / "images", mnist_directory, 60)
    run = trained(tmp_path / "run", "image-folder", folder, batch_size=8, view_batch_size=8)
    before = files(run)
    refused = call(run, "--split", "validation")
    assert refused.exit_code == 1
    assert "train one with --hold-out 10000, or use --split test" in refused.stderr
    assert "reading" not in refused.stderr
    assert files(run) == before


@pytest.mark.slow
def test_labelled_images_are_judged_by_a_classifier_that_is_trained_once(tmp_path, mnist_directory, monkeypatch):
    monkeypatch.setenv("INFOSINK_CACHE", str(tmp_path / "cache"))
    folder = write_digits(tmp_path / "images", mnist_directory, 200)
    run = trained(tmp_path / "run", "image-folder", folder, batch_size=8, view_batch_size=8)
    first, second = call(run, *SAMPLES), call(run, *SAMPLES)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert "training the independent classifier" in first.stderr
    assert "training the independent classifier" not in second.stderr
    found = read_evaluation(run)
    assert set(found.by_label) == set("0123456789")
    assert 0 <= found.measures["agreement.worst"] <= found.measures["agreement.mean"] <= 1
    assert found.classifier is not None
    report = (run / "evaluation.md").read_text()
    shown = [line.split("](")[1].rstrip(")") for line in report.splitlines() if line.startswith("![")]
    assert {"evaluation/samples.png", "evaluation/confusion.png", "evaluation/styles.png"} <= set(shown)
    for picture in shown:
        with Image.open(run / picture) as image:
            assert min(image.size) > 200


def test_ctrl_c_leaves_the_earlier_evaluation_as_it_was(run):
    (run / "evaluation.json").write_text("the earlier one")
    before = files(run)
    arguments = [sys.executable, "-c", MAIN, run, "--samples", "100000"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("drawing samples" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted; evaluations that were finished stay, every other run is as it was" in said
    assert "Traceback" not in said
    assert files(run) == before


def test_help_and_version_load_neither_torch_nor_matplotlib():
    script = f"""
import sys
sys.argv[1:] = ["--version"]
try:
    {MAIN}
except SystemExit as end:
    assert not end.code
assert not {{"torch", "numpy", "matplotlib", "scipy", "sklearn"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "infosink-evaluate, version" in done.stdout


@pytest.mark.parametrize(("module", "distribution"), [("sklearn", "scikit-learn"), ("torch", "torch")])
def test_a_missing_extra_is_named_in_one_line(run, module, distribution):
    script = f"import sys; sys.modules['{module}'] = None; sys.argv[1:] = ['run']; {MAIN}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=run.parent, check=False)
    assert done.returncode == 1
    message = f"Error: infosink-evaluate needs {distribution}: install with pip install 'infosink[evaluation]'"
    assert done.stderr.strip().splitlines() == [message]
