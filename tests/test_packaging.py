"""The wheel and the source distribution, as somebody else would install them."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def committed() -> set[str]:
    """The files that git would commit."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in names if (REPOSITORY / name).is_file()}


@pytest.fixture(scope="module")
def distributions(committed, tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, built from what git would commit, and the wheel, built from nothing but that."""
    source, unpacked, output = (tmp_path_factory.mktemp(name) for name in ("source", "unpacked", "dist"))
    for name in committed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name)
    build = [sys.executable, "-m", "build", "--outdir", output]
    subprocess.run([*build, "--sdist", source], check=True, capture_output=True)
    (sdist,) = output.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (project,) = unpacked.iterdir()
    subprocess.run([*build, "--wheel", project], check=True, capture_output=True)
    (wheel,) = output.glob("*.whl")
    return wheel, sdist


def test_the_wheel_holds_infosink_and_nothing_else(distributions):
    wheel, _ = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"infosink", "infosink-0.1.0.dist-info"}
    modules = [
        path for part in ("training", "export", "serving", "clients") for path in (REPOSITORY / part).rglob("*.py")
    ]
    assert {f"infosink/{path.relative_to(REPOSITORY)}" for path in modules} <= set(names)
    for part in ("v1", "oip", "training", "export", "serving", "clients"):
        assert f"infosink/{part}/py.typed" in names
    assert {"infosink/v1/sampling_service.proto", "infosink/oip/open_inference_service.proto"} <= set(names)
    shipped = {f"infosink/serving/released/{m}-{part}.onnx" for m in ("mnist", "gaussians") for part in ("gen", "q")}
    assert shipped <= set(names)
    assert "infosink-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_source_distribution_holds_all_that_git_does(committed, distributions):
    _, sdist = distributions
    with tarfile.open(sdist) as archive:
        names = {member.name.removeprefix("infosink-0.1.0/") for member in archive if member.isfile()}
    generated = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("infosink.egg-info/")}
    assert names - generated == committed


def test_both_pass_the_index_check(distributions):
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *distributions],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def install(directory: Path, wheel: Path, extra: str = "", constraints: Path = REPOSITORY / "constraints.txt") -> Path:
    """A fresh environment with the wheel and an extra; returns its bin."""
    venv.create(directory, with_pip=True)
    requirement = f"infosink{extra} @ {wheel.as_uri()}"
    pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", constraints, requirement], check=True, capture_output=True)
    return directory / "bin"


def test_the_bare_install_is_the_client_and_names_the_missing_extras(distributions, tmp_path):
    wheel, _ = distributions
    commands = install(tmp_path / "bare", wheel)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [commands / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    assert call("infosink", "sample", "--help").returncode == 0
    unreachable = call("infosink", "models", "--server", "127.0.0.1:1", "--timeout", "5")
    assert unreachable.returncode == 3
    (tmp_path / "gen.onnx").write_bytes(b"")
    for extra, words in (
        ("training", ("infosink-train", "gaussians")),
        ("evaluation", ("infosink-evaluate", "runs/mnist")),
        ("evaluation", ("infosink-figures", "2")),
        ("export", ("infosink-export", "runs/mnist")),
        ("serving", ("infosink-serve", "--model", "gen.onnx")),
    ):
        missing = call(*words)
        assert missing.returncode == 1
        (line,) = missing.stderr.strip().splitlines()
        assert f"infosink[{extra}]" in line


def test_the_client_runs_with_the_oldest_dependencies_it_allows(distributions, tmp_path):
    wheel, _ = distributions
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    oldest = {}
    for requirement in map(Requirement, project["dependencies"]):
        (oldest[requirement.name],) = (limit.version for limit in requirement.specifier if limit.operator == ">=")
    constraints = tmp_path / "oldest.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in oldest.items()))
    commands = install(tmp_path / "oldest", wheel, constraints=constraints)
    helped = subprocess.run([commands / "infosink", "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0, helped.stderr
    words = [commands / "infosink", "models", "--server", "127.0.0.1:1", "--timeout", "5"]
    unreachable = subprocess.run(words, capture_output=True, text=True, check=False)
    assert unreachable.returncode == 3, unreachable.stderr


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["training", "evaluation", "export", "serving", "all"])
def test_each_extra_brings_what_its_command_needs(distributions, tmp_path, extra):
    wheel, _ = distributions
    commands = install(tmp_path / extra, wheel, f"[{extra}]")

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [commands / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    if extra != "serving":
        trained = call("infosink-train", "gaussians", "--preset", "quick", "--iterations", "2", "-o", "run")
        assert trained.returncode == 0, trained.stderr
    if extra in ("evaluation", "all"):
        for words in (("infosink-evaluate", "run", "--samples", "100"), ("infosink-figures", "2", "--quick")):
            done = call(*words)
            assert done.returncode == 0, done.stderr
    if extra in ("export", "all"):
        exported = call("infosink-export", "run")
        assert exported.returncode == 0, exported.stderr
    if extra in ("serving", "all"):
        model = REPOSITORY / "tests" / "compatibility" / "schema-1" / "gen.onnx"
        arguments = [commands / "infosink-serve", "--model", model, "--port", "0"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
            ready = server.stdout.readline()
            server.terminate()
        assert "SERVING" in ready
        assert server.returncode == 0
