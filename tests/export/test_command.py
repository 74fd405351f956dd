"""infosink-export as a user meets it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from infosink.export.command import main
from infosink.export.export import ExportedModel
from infosink.training.configuration import Configuration
from infosink.training.run_directory import RunDirectory
from safetensors.torch import load_file, save_file

COMMAND = Path(sys.executable).with_name("infosink-export")
LIMIT = 300

Copy = Callable[[], Path]


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def complaint(result: Result) -> str:
    """The one line that a failed command ends with."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if not line.endswith("...")]
    return line


@pytest.fixture
def copied_run(gaussians_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gaussians_run, tmp_path / "run"))


def test_a_run_is_exported_with_the_same_bytes_by_another_process(
    copied_run: Path, gaussians_files: ExportedModel, tmp_path: Path
) -> None:
    """The fixture's files were made in this process, from the same checkpoint at another place."""
    before = sorted(copied_run.iterdir())
    made = tmp_path / "new folder" / "models"
    finished = subprocess.run(
        [COMMAND, copied_run, "--output", made, "--name", "dots", "--licence", "MIT"],
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
    assert sum(bool(re.match(r" +\d+  \d+ +[\d.]+% +[\d.]+% +[\d.]+%$", line)) for line in lines) == 25
    assert any(line.startswith("Largest differences from PyTorch: {") for line in lines)
    assert f"{made / 'q.onnx'}  2.2 MB" in lines
    assert lines[-1] == f"Next: infosink-serve --model '{made / 'gen.onnx'}'"
    assert sorted(path.name for path in made.iterdir()) == ["gen.onnx", "q.onnx"]
    assert (made / "gen.onnx").read_bytes() == gaussians_files.generator_path.read_bytes()
    assert (made / "q.onnx").read_bytes() == gaussians_files.encoder_path.read_bytes()
    assert sorted(copied_run.iterdir()) == before


def test_version_and_help() -> None:
    assert "version 0.1.0" in export("--version").output
    text = export("--help").output
    assert all(option in text for option in ("RUN", "--output", "--name", "--data-dir", "--licence", "--version"))


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    line = complaint(export(tmp_path / "nowhere", "--output", tmp_path / "made"))
    assert "nowhere holds no run" in line
    assert not (tmp_path / "made").exists()


def test_a_damaged_configuration_is_refused(copied_run: Path) -> None:
    (copied_run / "config.json").write_text("{")
    assert "config.json is damaged" in complaint(export(copied_run))


def test_a_run_without_a_checkpoint_is_refused(copied_run: Path) -> None:
    (copied_run / "checkpoint.safetensors").unlink()
    assert "stopped before its first checkpoint" in complaint(export(copied_run))


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
    run = RunDirectory.open(copied_run)
    settings = json.loads((copied_run / "config.json").read_text())
    del settings["data"]
    options = {"data_directory": str(tmp_path / "gone"), "sigma": None, "channels": None}
    run.write_configuration(Configuration.from_mapping(settings | {"dataset": "mnist"}), {"options": options})
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
    (copied_run / "gen.onnx").mkdir()
    assert "gen.onnx is a folder" in complaint(export(copied_run))


def test_a_name_that_cannot_be_served_is_refused_before_any_work(copied_run: Path) -> None:
    result = export(copied_run, "--name", "two words")
    assert "'two words' cannot be served: give --name 1 to 64" in complaint(result)
    assert "reading" not in result.stderr


@pytest.mark.parametrize("module", ["torch", "onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(gaussians_run: Path, module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from infosink.export.command import main; main()"
    finished = subprocess.run(
        [sys.executable, "-c", code, gaussians_run], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr == f"Error: {module} is not installed: pip install 'infosink[export]'\n"


def test_help_needs_no_extra() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'numpy'): sys.modules[name] = None\n"
        "from infosink.export.command import main; main()"
    )
    finished = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, timeout=LIMIT, check=False)
    assert finished.returncode == 0, finished.stderr
