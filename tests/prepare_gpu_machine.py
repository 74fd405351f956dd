"""Takes what the tests marked gpu need to a machine that has a CUDA device and torch, but no network.

Such a machine may take only little at a time, so that large files travel as parts of at most 16 MB, over any number of
calls; each part and each file is checked by its SHA-256. It needs Python alone.

Where there is a network, for a machine whose Python is 3.12:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 -d wheels \
        onnxruntime-gpu
    python -m build --wheel --outdir wheels     # infosink's own; whatever else the machine lacks goes there too
    python tests/prepare_gpu_machine.py split parts wheels/*.whl serving/released/*.onnx

On the machine, as often as parts arrive in a folder, which may hold a few of them at a time, beside manifest.json:

    python tests/prepare_gpu_machine.py join parts files
    python tests/prepare_gpu_machine.py install files environment
    environment/bin/infosink-serve --doctor --device cuda
    environment/bin/python -m pytest -m gpu

`install` makes an environment that sees the machine's own packages behind its own, and links the CUDA libraries that
torch brought beside onnxruntime, which is where onnxruntime.preload_dlls looks for them.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

PART_BYTES = 16_000_000
MANIFEST = "manifest.json"

_CHECK = """
import onnxruntime
onnxruntime.preload_dlls()
print("onnxruntime", onnxruntime.__version__, "for CUDA", onnxruntime.cuda_version)
"""


class PreparationError(Exception):
    """What was asked for cannot be done; the message says why."""


def split(folder: Path, files: list[Path], part_bytes: int = PART_BYTES) -> None:
    """Writes the parts of `files` into `folder`, and a manifest of what they are parts of."""
    names = [path.name for path in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise PreparationError(f"two files are named {min(twice)}: rename one")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for path in files:
        whole, parts = hashlib.sha256(), []
        with path.open("rb") as content:
            while part := content.read(part_bytes):
                whole.update(part)
                parts.append({"name": f"{path.name}.{len(parts):03d}", "sha256": hashlib.sha256(part).hexdigest()})
                (folder / parts[-1]["name"]).write_bytes(part)
        manifest[path.name] = {"sha256": whole.hexdigest(), "parts": parts}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    count = sum(len(file["parts"]) for file in manifest.values())
    print(f"{folder}: {len(manifest)} files in {count} parts")


def join(folder: Path, destination: Path) -> bool:
    """Takes the parts that lie in `folder` over, joins each file that is whole, and says what is still missing.

    Returns:
        Whether every file of the manifest is there.

    Raises:
        PreparationError: A part or a file is not what was split; it is removed from `destination`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    # The manifest need come with one call only.
    if (folder / MANIFEST).exists():
        shutil.copyfile(folder / MANIFEST, destination / MANIFEST)
    try:
        manifest = json.loads((destination / MANIFEST).read_text())
    except FileNotFoundError:
        raise PreparationError(
            f"{folder} has no {MANIFEST}, and none came before: it must come with the first parts"
        ) from None
    missing = [
        name
        for file, expected in manifest.items()
        if not _is(destination / file, expected["sha256"])
        for name in _take_over(folder, destination, file, expected)
    ]
    for name in missing:
        print(f"missing: {name}")
    print(f"{destination}: {'all' if not missing else 'not all'} of {len(manifest)} files")
    return not missing


def _take_over(folder: Path, destination: Path, file: str, expected: dict) -> list[str]:
    """Copies the parts of one file, and joins it if they are all there; returns the names of those that are not."""
    missing = []
    for part in expected["parts"]:
        kept, arrived = destination / part["name"], folder / part["name"]
        if not kept.exists() and arrived.exists():
            shutil.copyfile(arrived, kept)
        if not kept.exists():
            missing.append(part["name"])
        elif not _is(kept, part["sha256"]):
            kept.unlink()
            raise PreparationError(f"{part['name']} is damaged: send it again")
    if missing:
        return missing
    unfinished = destination / f"{file}.joining"
    with unfinished.open("wb") as whole:
        for part in expected["parts"]:
            whole.write((destination / part["name"]).read_bytes())
    if not _is(unfinished, expected["sha256"]):
        unfinished.unlink()
        raise PreparationError(f"{file} is not what was split: split it again")
    unfinished.replace(destination / file)
    for part in expected["parts"]:
        (destination / part["name"]).unlink()
    return []


def _is(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == sha256


def install(files: Path, environment: Path) -> None:
    """Makes an environment of the joined wheels and of what the machine has, with torch's CUDA libraries.

    Raises:
        PreparationError: torch's libraries are not there, or what was installed does not load.
    """
    wheels = sorted(files.glob("*.whl"))
    if not any(wheel.name.startswith("onnxruntime_gpu-") for wheel in wheels):
        raise PreparationError(f"{files} holds no wheel of onnxruntime-gpu: join its parts first")
    torch = importlib.util.find_spec("torch")
    libraries = Path(torch.origin).parents[1] / "nvidia" if torch and torch.origin else None
    if libraries is None or not libraries.is_dir():
        raise PreparationError(f"{sys.executable} has no torch that brought CUDA libraries: run this with one that has")
    venv.create(environment, with_pip=False, clear=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", *wheels],
        check=True,
    )
    packages = next((environment / "lib").glob("python*/site-packages"))
    # Looked at after the environment's own packages. Not venv's own way, which would pass over the packages of an
    # environment that this runs in.
    (packages / "machine.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    if not (packages / "nvidia").exists():
        (packages / "nvidia").symlink_to(libraries, target_is_directory=True)
    said = subprocess.run([python, "-c", _CHECK], capture_output=True, text=True, check=True).stdout
    print(said, end="")
    # onnxruntime prints it, and goes on.
    if "Failed to load" in said:
        raise PreparationError(f"onnxruntime does not find all it needs in {libraries}")


def main() -> int:
    """Does what the command line says; 0 where it is done, 2 where parts are still missing, 1 where it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("split", help="files into parts")
    command.add_argument("folder", type=Path)
    command.add_argument("files", type=Path, nargs="+")
    command = commands.add_parser("join", help="parts into files")
    command.add_argument("folder", type=Path)
    command.add_argument("destination", type=Path)
    command = commands.add_parser("install", help="files into an environment")
    command.add_argument("files", type=Path)
    command.add_argument("environment", type=Path)
    given = parser.parse_args()
    try:
        if given.command == "split":
            split(given.folder, given.files)
        elif given.command == "install":
            install(given.files, given.environment)
        elif not join(given.folder, given.destination):
            return 2
    except (PreparationError, OSError, subprocess.CalledProcessError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
