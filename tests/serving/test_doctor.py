"""What infosink-serve --doctor finds."""

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from infosink.serving.doctor import Finding, examine
from infosink.serving.runtime import cuda
from infosink.serving.runtime.cuda import cuda_devices
from infosink.serving.settings import Settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import _imagingmath


@pytest.fixture
def settings(schema_1: Path) -> Settings:
    return Settings(models=((None, schema_1 / "gen.onnx"),), port=0, threads=1)


def test_a_machine_that_can_serve_is_found_well(settings: Settings) -> None:
    findings = {finding.subject: finding for finding in examine(settings)}
    assert not [finding for finding in findings.values() if finding.fatal]
    assert {"infosink", "python", "grpcio", "protobuf", "numpy", "onnxruntime", "cores", "telemetry"} <= set(findings)
    assert "CPUExecutionProvider" in findings["providers built in"].state
    assert findings["telemetry"].state.startswith("off")
    assert findings["model gen.onnx"].state.startswith("loads, of checkpoint ")
    assert findings["port"].state == "127.0.0.1:0 is free"


def test_it_asks_for_nothing_that_the_extra_does_not_bring(settings: Settings) -> None:
    requirements = map(Requirement, importlib.metadata.requires("infosink") or [])
    brought = {each.name for each in requirements if not each.marker or each.marker.evaluate({"extra": "serving"})}
    looked_at = {finding.subject for finding in examine(settings)} & {
        canonicalize_name(distribution.name) for distribution in importlib.metadata.distributions()
    }
    assert {"grpcio", "prometheus-client"} <= looked_at
    assert looked_at - {"infosink", "onnxruntime"} <= brought


def test_the_models_that_ship_are_looked_at_where_none_is_named() -> None:
    found = [finding for finding in examine(Settings(port=0, threads=1)) if finding.subject.startswith("model ")]
    assert [finding.subject for finding in found] == ["model mnist", "model gaussians"]
    assert all(finding.state.startswith("loads") for finding in found)


def test_a_port_that_is_taken_is_named_and_one_that_was_free_still_is(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = found(replace(settings, port=port), "port")
        assert finding.fatal
        assert f"127.0.0.1:{port}" in finding.state
        assert finding.remedy == "--port with another port, or 0 for any"
        assert found(replace(settings, metrics_port=port), "metrics port").fatal
    assert found(replace(settings, metrics_port=port, health_port=port), "metrics port").fatal
    assert not found(replace(settings, port=port), "port").fatal
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


def test_a_model_that_cannot_be_served_is_named(settings: Settings, schema_1: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((schema_1 / "gen.onnx").read_bytes()[:-100])
    finding = found(replace(settings, models=((None, broken),)), "model broken.onnx")
    assert finding.fatal
    assert str(broken) in finding.state
    # An encoder of another checkpoint.
    finding = found(replace(settings, encoder=schema_1 / "points-q.onnx"), "model gen.onnx")
    assert finding.fatal
    assert "of another checkpoint" in finding.state


def test_a_port_that_strangers_reach_is_told_of(settings: Settings, tmp_path: Path) -> None:
    assert found(settings, "access").remedy is None
    finding = found(replace(settings, host="0.0.0.0"), "access")
    assert finding.state == "from other machines, without authentication or encryption"
    assert finding.remedy is not None
    assert not finding.fatal
    assert found(replace(settings, token_file=tmp_path / "none"), "access").fatal


def test_two_packages_of_onnxruntime_are_told_how_to_become_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "top_level.txt").write_text("onnxruntime\n")
    monkeypatch.syspath_prepend(tmp_path)
    finding = found(settings, "onnxruntime packages")
    assert "onnxruntime 1.0, onnxruntime-gpu 1.0" in finding.state
    assert finding.remedy == "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    # What is loaded may still serve.
    assert not finding.fatal


def test_a_device_that_is_asked_for_in_vain_fails(settings: Settings) -> None:
    fatal = [finding for finding in examine(replace(settings, device="cuda")) if finding.fatal]
    if cuda_devices():
        assert fatal == []
    else:
        assert fatal[0].remedy is not None
        assert "--device cpu" in fatal[0].remedy or "nvidia-smi" in fatal[0].remedy


def test_a_library_that_is_found_is_shown_with_its_file(schema_1: Path, tmp_path: Path) -> None:
    """Any library will do, by the name that is looked for."""
    library = tmp_path / "libcurand.so.10"
    shutil.copy(_imagingmath.__file__, library)
    ended = subprocess.run(
        [
            *(Path(sys.executable).with_name("infosink-serve"), "--doctor", "--port", "0"),
            *("--model", schema_1 / "gen.onnx", "--device", "auto"),
        ],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = dict(re.findall(r"^ok +(lib\S+\.so\S*) +(.*)$", ended.stdout, re.MULTILINE))
    assert len(found) >= 5
    path = Path(found["libcurand.so.10"])
    assert (path.name, path.is_file()) == (library.name, True)
    if not cuda_devices():
        assert path == library


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_driver_that_is_too_old_is_told_of(settings: Settings, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """The driver is made to say that it is older, and that it has a device."""
    monkeypatch.setattr(cuda, "driver_version", lambda: (11, 8))
    monkeypatch.setattr(cuda, "cuda_devices", lambda: 1)
    findings = list(examine(replace(settings, device=device)))
    devices, *_ = (finding for finding in findings if finding.subject == "CUDA devices")
    assert (devices.state, devices.remedy) == ("1, of a driver for CUDA 11.8", None)
    (driver,) = (finding for finding in findings if finding.subject == "CUDA driver")
    assert re.fullmatch(r"for CUDA 11, older than the 1[2-9] that onnxruntime is built for", driver.state)
    assert driver.remedy is not None
    assert driver.remedy.startswith("install an NVIDIA driver for CUDA 1")
    # The CPU serves where it may.
    assert driver.fatal == (device == "cuda")
    for finding in findings:
        if finding.subject.startswith("lib") and finding.state == "not found":
            assert finding.remedy == "pip install 'infosink[cuda]'"
            assert finding.fatal == (device == "cuda")


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ([], 0, ["serving would work", "ok     model gen.onnx"]),
        (["--encoder", "{}/points-q.onnx"], 1, ["serving would fail", "FAILS  model gen.onnx", "       fix: "]),
    ],
)
def test_the_command_prints_it_and_exits_accordingly(
    schema_1: Path, given: list[str], code: int, words: list[str]
) -> None:
    arguments = [
        "--doctor",
        "--port",
        "0",
        "--model",
        schema_1 / "gen.onnx",
        *(each.format(schema_1) for each in given),
    ]
    ended = subprocess.run(
        [Path(sys.executable).with_name("infosink-serve"), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (code, "")
    assert [word for word in words if word not in ended.stdout] == []


def test_an_onnxruntime_that_cannot_be_loaded_is_found() -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from infosink.serving.command import main\n"
        "main(['--doctor', '--port', '0'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "FAILS  onnxruntime             cannot be loaded" in ended.stdout
    assert "fix: pip install 'infosink[serving]'" in ended.stdout


def found(settings: Settings, subject: str) -> Finding:
    return next(finding for finding in examine(settings) if finding.subject == subject)
