"""The rules of ARCHITECTURE.md: who may import whom, and what stays out of which process."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MAY_IMPORT = {
    "training": {"v1"},
    "export": {"training", "v1"},
    "serving": {"v1", "oip"},
    "clients": {"v1"},
}
NEVER_LOADED = {
    "infosink.serving.server": {"torch", "onnx", "infosink.training", "infosink.export", "infosink.clients"},
    # A process has room for one definition of the messages of infosink.oip, and a client may bring its own.
    "infosink.clients.client": {
        "torch", "onnx", "onnxruntime", "infosink.training", "infosink.serving", "infosink.oip",
    },
    "infosink.training.launch": {
        "onnx", "onnxruntime", "grpc", "matplotlib", "sklearn", "scipy",
        "infosink.serving", "infosink.export", "infosink.training.evaluation", "infosink.training.figures",
    },
    "infosink.clients.command": {"torch", "onnxruntime", "numpy", "grpc", "PIL"},
    "infosink.serving.command": {"onnxruntime", "numpy", "grpc"},
    "infosink.export.command": {"torch", "onnx", "onnxruntime", "numpy"},
    "infosink.training.command": {"torch", "numpy"},
    "infosink.training.evaluation.command": {"torch", "numpy", "scipy", "sklearn", "matplotlib"},
    "infosink.training.figures.command": {"torch", "numpy", "matplotlib"},
}  # fmt: skip
COMMANDS = [
    "infosink", "infosink-train", "infosink-evaluate", "infosink-figures", "infosink-export", "infosink-serve",
]  # fmt: skip
# What builds on a finished run is built upon by nothing below it; and in serving each folder stands on those before it.
_SERVING = ["calls", "runtime", "models", "sampling", "open_inference"]
_BESIDE = {"observation", "security"}
UNKNOWN_TO = {
    **{f"serving/{folder}": _BESIDE.union(_SERVING[place + 1 :]) for place, folder in enumerate(_SERVING)},
    "training": {"evaluation", "figures"},
    "training/datasets": {"evaluation", "figures"},
    "training/evaluation": {"figures"},
}


def imported_names(source: str, package: str) -> tuple[list[str], list[str]]:
    """The full names that a module of a package imports: absolutely, and relatively."""
    absolute, relative = [], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            absolute += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            (relative if node.level else absolute).extend(f"{name}.{alias.name}" for alias in node.names)
    return absolute, relative


def imported_parts(source: str, package: str) -> set[str]:
    """The parts of infosink that a module of a package imports; its own only where it is named in full."""
    absolute, relative = imported_names(source, package)
    own = package.split(".")[1]
    return {part for name in absolute if (part := part_of(name))} | {
        part for name in relative if (part := part_of(name)) != own
    }


def part_of(name: str) -> str | None:
    """The part of infosink in which a full name lies."""
    root, *below = name.split(".")
    return below[0] if root == "infosink" and below else None


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("import infosink.training.launch", {"training"}),
        ("from infosink import training", {"training"}),
        ("from infosink.training import launch", {"training"}),
        ("from infosink.serving import errors", {"serving"}),
        ("from ... import training", {"training"}),
        ("from ...training import launch", {"training"}),
        ("from ...training.datasets.images import LabelledPixels", {"training"}),
        ("def late():\n    from ... import training", {"training"}),
        ("from ..errors import StartupError", set()),
        ("from .png import encode", set()),
        ("from . import png", set()),
        ("import training", set()),
    ],
)
def test_every_way_to_import_a_part_is_seen(statement, parts):
    assert imported_parts(statement, "infosink.serving.pictures") == parts


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_they_may(part):
    modules = sorted((REPOSITORY / part).rglob("*.py"))
    assert len(modules) > 3
    foreign = {}
    for path in modules:
        name = path.relative_to(REPOSITORY)
        package = ".".join(("infosink", *name.parent.parts))
        foreign[str(name)] = imported_parts(path.read_text(), package) - MAY_IMPORT[part]
    assert {name: parts for name, parts in foreign.items() if parts} == {}


@pytest.mark.parametrize("folder", UNKNOWN_TO)
def test_a_folder_knows_nothing_of_what_builds_on_it(folder):
    modules = sorted((REPOSITORY / folder).glob("*.py"))
    assert len(modules) > 3
    package = "infosink." + folder.replace("/", ".")
    part = folder.partition("/")[0]
    forbidden = tuple(f"infosink.{part}.{name}." for name in UNKNOWN_TO[folder])
    found = {
        path.name: [
            name for names in imported_names(path.read_text(), package) for name in names
            if f"{name}.".startswith(forbidden)
        ]
        for path in modules
    }  # fmt: skip
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize("module", NEVER_LOADED)
def test_what_a_process_never_loads(module):
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert NEVER_LOADED[module] & set(loaded) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_states_its_version(command):
    executable = Path(sys.executable).with_name(command)
    said = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"{command}, version 0.1.0\n"
