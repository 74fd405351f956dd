"""Large files that travel in parts, over several calls."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).with_name("prepare_gpu_machine.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_gpu_machine", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file of three parts of 1000 bytes, and one of a part."""
    paths = [tmp_path / "large.whl", tmp_path / "small.onnx"]
    paths[0].write_bytes(os.urandom(2500))
    paths[1].write_bytes(os.urandom(1000))
    return paths


def test_parts_that_come_a_call_at_a_time_are_joined(
    script: ModuleType, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, arriving, joined = tmp_path / "parts", tmp_path / "arriving", tmp_path / "joined"
    script.split(parts, files, 1000)
    names = sorted(path.name for path in parts.iterdir())
    assert names == ["large.whl.000", "large.whl.001", "large.whl.002", "manifest.json", "small.onnx.000"]
    assert max(path.stat().st_size for path in parts.iterdir() if path.name != "manifest.json") == 1000
    for call, (names, complete) in enumerate(
        [(["manifest.json", "large.whl.002"], False), (["large.whl.000", "small.onnx.000"], False),
         (["large.whl.001"], True), ([], True)]
    ):  # fmt: skip
        folder = arriving / str(call)
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes((parts / name).read_bytes())
        capsys.readouterr()
        assert script.join(folder, joined) is complete
        assert ("missing: large.whl.001" in capsys.readouterr().out) is not complete
    assert sorted(path.name for path in joined.iterdir()) == ["large.whl", "manifest.json", "small.onnx"]
    assert [(joined / path.name).read_bytes() for path in files] == [path.read_bytes() for path in files]


def test_a_damaged_part_is_refused_and_may_be_sent_again(script: ModuleType, files: list[Path], tmp_path: Path) -> None:
    parts, joined = tmp_path / "parts", tmp_path / "joined"
    script.split(parts, files, 1000)
    sound = (parts / "large.whl.001").read_bytes()
    (parts / "large.whl.001").write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(script.PreparationError, match=r"large.whl.001 is damaged: send it again"):
        script.join(parts, joined)
    (parts / "large.whl.001").write_bytes(sound)
    assert script.join(parts, joined)


def test_the_command_says_what_is_missing_and_what_is_wrong(files: list[Path], tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, SCRIPT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    parts, joined = tmp_path / "parts", tmp_path / "joined"
    ended = run("join", tmp_path / "nothing", joined)
    assert (ended.returncode, "manifest.json" in ended.stderr) == (1, True)
    assert run("split", parts, *files).stdout == f"{parts}: 2 files in 2 parts\n"
    (parts / "small.onnx.000").rename(tmp_path / "kept")
    ended = run("join", parts, joined)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (2, "missing: small.onnx.000")
    ended = run("install", joined, tmp_path / "environment")
    assert ended.returncode == 1
    assert ended.stderr == f"Error: {joined} holds no wheel of onnxruntime-gpu: join its parts first\n"
