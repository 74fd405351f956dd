"""infosink-train as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.modes import mode_coverage
from infosink.training.labelling import NamedCategory, unreachable_labels
from infosink.training.run_directory import RunDirectory, RunDirectoryError
from infosink.training.trained_model import load_trained_model
from PIL import Image

COMMAND = Path(sys.executable).with_name("infosink-train")
QUICK_TRAINING = ["--preset", "quick", "--batch-size", "128"]
FAST = ["--dual-learning-rate", "0.001", "--code-learning-rate", "0.001", "--generator-learning-rate", "0.001"]


def infosink_train(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Eight Gaussians trained for a short while with and without the information term."""
    directory = tmp_path_factory.mktemp("runs")
    for name, weight in (("informative", "1.5"), ("baseline", "0")):
        done = infosink_train(
            "eight-gaussians", "-o", directory / name, "--iterations", "400", *QUICK_TRAINING, *FAST, "--lambda", weight
        )
        assert done.returncode == 0, done.stderr
        (directory / f"{name}.txt").write_text(done.stdout)
    return {"informative": directory / "informative", "baseline": directory / "baseline"}


def purity(run: Path) -> float:
    model = load_trained_model(RunDirectory.open(run))
    latents = model.configuration.latent_space.draw(2500, torch.Generator().manual_seed(11))
    categories = model.configuration.latent_space.category_of(latents)
    samples = model.networks.sampling_generator(latents)
    return mode_coverage(samples, categories, model.dataset.centres, model.dataset.sigma).code_mode_purity


def test_the_information_term_makes_the_category_mean_the_mode(runs):
    assert purity(runs["informative"]) > 0.9
    assert purity(runs["baseline"]) < 0.4


def test_a_run_leaves_what_it_promises_and_names_its_categories(runs):
    run = runs["informative"]
    config = json.loads((run / "config.json").read_text())
    assert config["lambda"] == 1.5
    assert config["data"]["options"] == {"data_directory": None, "sigma": None, "channels": None, "hold_out": None}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 400
    assert lines[-1]["information"] > lines[0]["information"] + 0.5
    for picture in (run / "samples").iterdir():
        with Image.open(picture) as image:
            assert image.size == (640, 640)
    model = load_trained_model(RunDirectory.open(run))
    assert sum(category.sample_share for category in model.categories) == pytest.approx(1.0)
    printed = run.with_name("informative.txt").read_text()
    missing = unreachable_labels(model.categories, model.dataset)
    if missing:
        assert f"out of reach, as no category bears them: {', '.join(missing)}." in printed
    else:
        assert "all 8 labels can be sampled" in printed
    assert f"infosink-export {run}" in printed


def test_unreachable_labels_are_those_no_category_bears():
    dataset = open_dataset("eight-gaussians")
    named = [NamedCategory(label, 0.9, 0.1, 1.0) for label in "0123344"] + [NamedCategory("", 0.0, 0.0, 0.0)]
    assert unreachable_labels(named, dataset) == ["5", "6", "7"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(tmp_path, number):
    arguments = ["gaussians", "--preset", "quick", "--batch-size", "16", "--iterations", "1000000", "-o", "run"]
    said = ""
    with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for line in process.stderr:
            said += line
            if "forecast" in line:
                process.send_signal(number)
    assert process.returncode == 128 + number
    assert "infosink-train gaussians --output run --resume" in said
    reached = RunDirectory.open(tmp_path / "run").read_checkpoint().header["iteration"]
    assert f"iteration {reached:,} is saved" in said
    resumed = infosink_train("gaussians", "-o", "run", "--resume", "--iterations", str(reached + 30), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"from iteration {reached:,} on" in resumed.stderr
    assert RunDirectory.open(tmp_path / "run").read_checkpoint().header["iteration"] == reached + 30


def test_a_run_of_hours_is_forecast_with_the_quicker_alternative(tmp_path):
    """Hours, since a million iterations are; the run is stopped once it has said so."""
    arguments = ["gaussians", "--iterations", "100000000", "--batch-size", "8", "--dual-steps", "1", "-o", "run"]
    said = ""
    with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for line in process.stderr:
            said += line
            if "quicker" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert "forecast: 100,000,000 iterations at" in said
    assert "--preset quick" in said


def test_dry_run_prints_the_configuration_and_touches_nothing(tmp_path):
    done = infosink_train("mnist", "--dry-run", "--epsilon", "0.1", cwd=tmp_path)
    assert json.loads(done.stdout)["epsilon"] == 0.1
    assert json.loads(done.stdout)["iterations"] == preset_configuration("mnist", "best").iterations
    assert list(tmp_path.iterdir()) == []


def unwritable(path: Path) -> None:
    (path / "runs").write_text("a file where a directory should be")


def not_empty(path: Path) -> None:
    (path / "runs" / "gaussians").mkdir(parents=True)
    (path / "runs" / "gaussians" / "thesis.txt").write_text("years of work")


def contents(directory: Path) -> dict[Path, bytes]:
    """Every file and folder below a directory."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


def corrupt_mnist(path: Path) -> None:
    (path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (path / "mnist" / f"{name}-ubyte").write_bytes(b"\x00\x00\x08\x03broken")


@pytest.mark.parametrize(
    ("arguments", "prepare", "code", "message"),
    [
        (["cifar"], None, 2, "unknown data set 'cifar'; choose from mnist"),
        (["gaussians", "--preset", "best-ever"], None, 2, "unknown preset 'best-ever'; choose from paper, quick"),
        (["gaussians"], unwritable, 1, "name another with --output"),
        (["gaussians"], not_empty, 1, "is not empty: continue that run with --resume"),
        (["gaussians", "--resume"], None, 1, "holds no run"),
        (["gaussians", "--epsilon", "-1"], None, 2, "--epsilon is -1.0; it must be positive"),
        (["gaussians", "--batch-size", "0"], None, 2, "0 is not in the range"),
        (["gaussians", "--channels", "3"], None, 1, "takes no --channels"),
        (["mnist", "--data-dir", "mnist"], corrupt_mnist, 1, "train-images-idx3-ubyte"),
        (["mnist", "--data-dir", "nowhere"], None, 1, "nowhere"),
        (["image-folder"], None, 1, "--data-dir"),
        (["gaussians", "--device", "tpu"], None, 2, "'tpu' is not one of"),
        (["gaussians", "--sigma", "nan"], None, 1, "nan"),
        (["gaussians", "-o", "x" * 300], None, 1, "name another with --output"),
        (["gaussians", "-o", "x" * 300, "--resume"], None, 1, "cannot read"),
        (["gaussians", "--batch-size", "65536", "--sinkhorn-iterations", "99999"], None, 2, "at most 10000"),
    ],
)
def test_a_mistake_is_named_before_any_work(tmp_path, arguments, prepare, code, message):
    if prepare:
        prepare(tmp_path)
    before = contents(tmp_path)
    done = infosink_train(*arguments, "--iterations", "1", cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == before


def test_a_run_that_stopped_before_its_first_checkpoint_starts_again(tmp_path):
    sizes = ["--preset", "quick", "--batch-size", "8", "--iterations", "4"]
    assert infosink_train("gaussians", *sizes, "-o", "run", cwd=tmp_path).returncode == 0
    first = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    again = infosink_train("gaussians", "--resume", "-o", "run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == first
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_name_with_markup_or_spaces_is_shown_as_it_is_and_can_be_pasted(tmp_path):
    sizes = ["--preset", "quick", "--batch-size", "8", "--iterations", "1"]
    done = infosink_train("gaussians", *sizes, "-o", "[/bold] :smile: run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "infosink-export '[/bold] :smile: run'" in done.stdout


def test_data_that_moved_is_found_by_data_dir_and_data_that_changed_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(20):
        Image.new("L", (32, 32), 10 * index).save(tmp_path / "images" / f"{index:02d}.png")
    sizes = ["--preset", "quick", "--batch-size", "4", "--view-batch-size", "4", "--iterations", "2"]
    done = infosink_train("image-folder", "--data-dir", "images", *sizes, "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "images").rename(tmp_path / "moved")
    arguments = ("image-folder", "--resume", "--iterations", "3", "-o", "run")
    gone = infosink_train(*arguments, cwd=tmp_path)
    assert gone.returncode == 1
    assert "images" in gone.stderr
    moved = infosink_train(*arguments, "--data-dir", "moved", cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    (tmp_path / "moved" / "05.png").unlink()
    changed = infosink_train("image-folder", "--resume", "--iterations", "4", "-o", "run", cwd=tmp_path)
    assert changed.returncode == 1
    assert "the data is not what the run was trained on" in changed.stderr


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    arguments = ["gaussians", "--preset", "quick", "--batch-size", "8", "--iterations", "1000000", "-o", "run"]
    with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert any("forecast" in line for line in process.stderr)
        second = infosink_train("gaussians", "--resume", "-o", "run", cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert second.returncode == 1
    assert "another infosink-train is at work" in second.stderr
    assert "stopping after this iteration; once more to quit without saving" in said


def test_a_run_whose_reader_has_gone_saves_what_it_has(tmp_path):
    arguments = ["gaussians", "--preset", "quick", "--batch-size", "8", "--iterations", "1000000", "-o", "run"]
    with subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert "preset quick" in process.stderr.readline()
        process.stderr.close()
    assert RunDirectory.open(tmp_path / "run").read_checkpoint().header["iteration"] > 0


def test_resuming_with_another_hyperparameter_is_refused(runs):
    done = infosink_train("eight-gaussians", "-o", runs["baseline"], "--resume", "--epsilon", "2", "--preset", "quick")
    assert done.returncode == 1
    assert "--epsilon, --preset cannot change on --resume" in done.stderr


def test_a_finished_run_says_what_to_do_next(runs):
    done = infosink_train("eight-gaussians", "-o", runs["baseline"], "--resume")
    assert done.returncode == 1
    assert "has done 400 iterations, and 400 are asked for" in done.stderr
    assert "infosink-export" in done.stderr


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("[" * 100_000, "does not hold the settings of a run"),
        ("null", "does not hold the settings of a run"),
        ("{}", "it lacks 'data'"),
        ('{"data": {}}', "settings are missing: dataset, preset"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, contents, message):
    (tmp_path / "config.json").write_text(contents)
    done = infosink_train("gaussians", "--resume", "-o", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_whose_configuration_was_edited_is_not_read_back(runs, tmp_path):
    shutil.copytree(runs["baseline"], tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"epsilon": 1.5', '"epsilon": 9.9'))
    with pytest.raises(RunDirectoryError, match=r"config.json is not what it was"):
        load_trained_model(RunDirectory.open(tmp_path / "run"))


def test_dry_run_of_a_resumed_run_is_that_run(runs):
    done = infosink_train("eight-gaussians", "-o", runs["baseline"], "--resume", "--dry-run", "--iterations", "500")
    assert json.loads(done.stdout)["lambda"] == 0
    assert json.loads(done.stdout)["iterations"] == 500


def test_cuda_that_cannot_be_had_is_refused(tmp_path):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    arguments = [COMMAND, "gaussians", "--device", "cuda", "-o", tmp_path / "run"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=hidden, check=False)
    assert done.returncode == 1
    assert "torch finds no CUDA device here" in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_and_version_do_not_load_torch():
    for flag in ("--help", "--version"):
        script = f"""
import sys
sys.argv = ["infosink-train", "{flag}"]
from infosink.training.command import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_missing_extra_is_named_in_one_line(tmp_path):
    """With torch out of reach, as in the base install."""
    script = """
import sys
sys.modules["torch"] = None
sys.argv = ["infosink-train", "gaussians"]
from infosink.training.command import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "Error: infosink-train needs torch: install it with pip install 'infosink[training]'"
    ]
