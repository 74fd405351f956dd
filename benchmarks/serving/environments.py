"""Virtual environments for what does not belong into ours: made once, in a folder of the user's choice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


class NotInstalledError(Exception):
    """A package could not be installed here; the message is pip's."""


def environment(name: str, packages: Sequence[str], cache: Path) -> Path:
    """The interpreter of an environment with the packages, made if it is not there yet.

    Raises:
        NotInstalledError: If pip fails.
    """
    folder = (cache / name).absolute()
    python, installed = folder / "bin" / "python", folder / "installed.json"
    if installed.exists() and json.loads(installed.read_text()) == list(packages):
        return python
    print(f"installing {', '.join(packages)} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalledError(f"pip could not install {packages[0]}: {lines[-1] if lines else 'no message'}")
    installed.write_text(json.dumps(list(packages)))
    return python


def versions(python: Path, *packages: str) -> dict[str, str]:
    """The versions of packages in an environment."""
    script = (
        "import sys, json; from importlib.metadata import version; "
        "print(json.dumps({package: version(package) for package in sys.argv[1:]}))"
    )
    said = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=True).stdout
    return dict(json.loads(said))


def our_runtime() -> str:
    """The requirement of the onnxruntime that our server has, so that all servers have the same."""
    return f"onnxruntime-gpu=={version('onnxruntime-gpu')}"
