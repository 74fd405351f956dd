"""infosink-export as a user meets it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from infosink.export.command import main
from infosink.export.export import ExportedModel
from infosink.training.evaluation.record import Evaluation
from infosink.training.trained_model import TrainedModel
from safetensors.torch import load_file, save_file

COMMAND = Path(sys.executable).with_name("infosink-export")
LIMIT = 300
OPTIONS = (
    "RUN",
    "-o, --output",
    "--name",
    "--data-dir",
    "--licence",
    "--weights",
    "--precision",
    "--card-notes",
    "--version",
)

Copy = Callable[[], Path]


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def complaint(result: Result) -> str:
    """The one line that a failed command ends with."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if not line.endswith("...")]
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def copied_run(gaussians_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gaussians_run, tmp_path / "run"))


def test_a_run_is_exported_with_the_same_bytes_by_another_process(
    copied_run: Path, gaussians: TrainedModel, gaussians_files: ExportedModel, tmp_path: Path
) -> None:
    """The fixture's files were made in this process, from the same checkpoint at another place.

    An evaluation of another checkpoint changes nothing but what is said.
    """
    stale = Evaluation(
        checkpoint_sha256="0" * 64,
        run=gaussians.configuration.to_mapping() | {"iteration": 1},
        split="test",
        samples=100,
        seed=0,
        measures={},
        environment={},
    )
    (copied_run / "evaluation.json").write_text(stale.to_json())
    before = sorted(copied_run.iterdir())
    made = tmp_path / "new folder" / "models"
    finished = subprocess.run(
        [COMMAND, copied_run, "-o", made, "--name", "dots", "--licence", "MIT"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines() == [
        "reading the run and naming its categories ...",
        "tracing the networks ...",
        "comparing with PyTorch ...",
        "writing q.onnx and gen.onnx ...",
    ]
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("Checkpoint of iteration 3 of 3, SHA-256 ")
    table = [line for line in lines if re.match(r" +\d+  (\d+|\(no sample\)) +[\d.]+% +[\d.]+% +[\d.]+%$", line)]
    assert len(table) == 25
    unlabelled = sum(not category.label for category in gaussians.categories)
    assert sum("(no sample)" in line for line in table) == unlabelled > 0
    assert any(line.startswith("Largest differences from PyTorch: category_probability ") for line in lines)
    assert (
        f"Styles keep their plain names, and agreement is unknown: {copied_run / 'evaluation.json'} is of another "
        "checkpoint than the run's: make it again with infosink-evaluate"
    ) in lines
    assert "Licence of the weights: MIT" in lines
    assert f"{made / 'q.onnx'}  2.2 MB" in lines
    assert lines[-1] == f"Next: infosink-serve --model '{made / 'gen.onnx'}'"
    assert sorted(path.name for path in made.iterdir()) == ["gen.onnx", "q.onnx"]
    assert (made / "gen.onnx").read_bytes() == gaussians_files.generator_path.read_bytes()
    assert (made / "q.onnx").read_bytes() == gaussians_files.encoder_path.read_bytes()
    assert sorted(copied_run.iterdir()) == before


@pytest.mark.parametrize("stage", ["reading the run", "tracing", "comparing"])
def test_an_interrupt_ends_it_and_writes_nothing(copied_run: Path, tmp_path: Path, stage: str) -> None:
    made = tmp_path / "made"
    said = ""
    with subprocess.Popen([COMMAND, copied_run, "-o", made], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said += line
            if line.startswith(stage):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert said.endswith("Error: interrupted; nothing was written\n")
    assert not made.exists()


def test_version_and_help() -> None:
    assert "version 0.1.0" in export("--version").output
    text = export("-h").output
    assert all(option in text for option in OPTIONS)
    assert "(unstated)" in text
    assert "[float32|float16|int8]" in text


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    line = complaint(export(tmp_path / "nowhere", "--output", tmp_path / "made"))
    assert "nowhere holds no run" in line
    assert not (tmp_path / "made").exists()


def test_a_damaged_configuration_is_refused(copied_run: Path) -> None:
    (copied_run / "config.json").write_text("{")
    assert "config.json is damaged" in complaint(export(copied_run))


def test_a_run_without_a_checkpoint_is_refused(copied_run: Path) -> None:
    (copied_run / "checkpoint.safetensors").unlink()
    made = copied_run / "new" / "models"
    assert "has not reached its first checkpoint" in complaint(export(copied_run, "-o", made))
    assert not made.parent.exists()


def test_a_damaged_checkpoint_is_refused(copied_run: Path) -> None:
    path = copied_run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "checkpoint.safetensors is damaged" in complaint(export(copied_run))


def test_a_foreign_checkpoint_is_refused(copied_run: Path) -> None:
    path = copied_run / "checkpoint.safetensors"
    save_file(load_file(path), path)
    assert "is not a checkpoint of infosink-train" in complaint(export(copied_run))


def test_a_checkpoint_of_other_networks_is_refused(copied_run: Path) -> None:
    values = json.loads((copied_run / "config.json").read_text())
    (copied_run / "config.json").write_text(json.dumps(values | {"noise": 7}))
    assert "does not fit config.json" in complaint(export(copied_run))


def test_data_that_is_gone_is_named_and_can_be_found_again(copied_run: Path, tmp_path: Path) -> None:
    values = json.loads((copied_run / "config.json").read_text())
    values["dataset"] = "mnist"
    values["data"]["options"]["data_directory"] = str(tmp_path / "gone")
    (copied_run / "config.json").write_text(json.dumps(values))
    line = complaint(export(copied_run))
    assert f"{tmp_path / 'gone'} lacks train-images-idx3-ubyte" in line
    assert "--data-dir" in line
    assert f"{tmp_path / 'new'} lacks" in complaint(export(copied_run, "--data-dir", tmp_path / "new"))


def test_an_output_that_cannot_be_written_is_refused_before_any_work(copied_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = export(copied_run, "--output", tmp_path / "file" / "models")
    assert "cannot write to" in complaint(result)
    assert "--output" in complaint(result)
    assert "reading" not in result.stderr
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    result = export(copied_run, "--output", tmp_path / "dangling")
    assert "cannot write to" in complaint(result)
    assert "reading" not in result.stderr
    (copied_run / "gen.onnx").mkdir()
    assert "gen.onnx is a folder" in complaint(export(copied_run))


def test_a_name_that_cannot_be_served_is_refused_before_any_work(copied_run: Path) -> None:
    result = export(copied_run, "--name", "two words")
    assert "'two words' cannot be served: give --name 1 to 64" in complaint(result)
    assert "reading" not in result.stderr


def export_without(module: str, run: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.modules[{module!r}] = None; from infosink.export.command import main; main()"
    return subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("torch", "torch"),
        ("safetensors", "safetensors"),
        ("onnx", "onnx"),
        ("onnxscript", "onnxscript"),
        ("onnxruntime", "onnxruntime or onnxruntime-gpu"),
    ],
)
def test_a_missing_extra_is_named(gaussians_run: Path, module: str, distribution: str) -> None:
    finished = export_without(module, gaussians_run)
    assert finished.returncode == 1
    expected = f"Error: infosink-export needs {distribution}: install with pip install 'infosink[export]'\n"
    assert finished.stderr == expected


def test_a_module_of_no_extra_is_not_taken_for_one(gaussians_run: Path) -> None:
    finished = export_without("google.protobuf", gaussians_run)
    assert finished.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert "infosink[export]" not in finished.stderr.splitlines()[-1]


def test_help_needs_no_extra() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'numpy'): sys.modules[name] = None\n"
        "from infosink.export.command import main; main()"
    )
    finished = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, timeout=LIMIT, check=False)
    assert finished.returncode == 0, finished.stderr
