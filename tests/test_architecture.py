"""The rules of ARCHITECTURE.md: who may import whom, and what stays out of which process."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MAY_IMPORT = {
    "training": {"v1"},
    "export": {"training", "v1"},
    "serving": {"v1"},
    "clients": {"v1"},
}
NEVER_LOADED = {
    "infosink.serving.server": {"torch", "onnx", "infosink.training", "infosink.export", "infosink.clients"},
    "infosink.clients.client": {"torch", "onnx", "onnxruntime", "infosink.training", "infosink.serving"},
    "infosink.training.launch": {"onnx", "onnxruntime", "grpc", "infosink.serving", "infosink.export"},
    "infosink.clients.command": {"torch", "onnxruntime", "numpy", "grpc", "PIL"},
    "infosink.serving.command": {"onnxruntime", "numpy", "grpc"},
    "infosink.export.command": {"torch", "onnx", "onnxruntime", "numpy"},
    "infosink.training.command": {"torch", "numpy"},
}


def imported_packages(path: Path) -> set[str]:
    """The parts of infosink that a module imports by their full name."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("infosink.")}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_they_may(part):
    modules = sorted((REPOSITORY / part).rglob("*.py"))
    assert len(modules) > 3
    foreign = {str(path.relative_to(REPOSITORY)): imported_packages(path) - MAY_IMPORT[part] for path in modules}
    assert {path: names for path, names in foreign.items() if names} == {}


@pytest.mark.parametrize("module", NEVER_LOADED)
def test_what_a_process_never_loads(module):
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert NEVER_LOADED[module] & set(loaded) == set()


@pytest.mark.parametrize("command", ["infosink", "infosink-train", "infosink-export", "infosink-serve"])
def test_every_command_states_its_version(command):
    executable = Path(sys.executable).with_name(command)
    said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"{command}, version 0.1.0\n"
