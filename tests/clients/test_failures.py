"""What the `infosink` command says, and how it exits, where something is wrong."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from infosink.v1 import sampling_service_pb2 as v1

Run = Callable[..., Result]
Start = Callable[..., str]
RunProcess = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = ["sample", "batch", "infer", "traverse", "models"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_connection(infosink: Run, name: str) -> None:
    text = infosink(name, "--help").stdout
    assert all(option in text for option in ("--server", "--timeout", "--json"))


def test_exit_code_0_and_the_seed_that_repeats(process: RunProcess, folder: Path) -> None:
    first = process("sample", "--label", "7", "-o", "first.png")
    assert (first.returncode, first.stderr) == (0, "")
    seed = re.search(r"--seed (\d+)", first.stdout)
    assert seed
    assert process("sample", "--label", "7", "--seed", seed[1], "-o", "again.png").returncode == 0
    assert (folder / "again.png").read_bytes() == (folder / "first.png").read_bytes()


def test_exit_code_1_where_the_output_cannot_be_written(process: RunProcess, nobody: str) -> None:
    # The server is never asked: it is not there.
    result = process("sample", "-o", "missing/x.png", "--server", nobody)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: cannot write missing/x.png: the folder \S+ does not exist; create it first\n", result.stderr
    )


def test_exit_code_2_for_wrong_usage(process: RunProcess) -> None:
    result = process("sample", "--style", "1.5", "-o", "x.png")
    assert result.returncode == 2
    assert "1.5" in result.stderr
    assert "between -1 and 1" in result.stderr


def test_exit_code_3_where_no_server_answers(process: RunProcess, nobody: str, folder: Path) -> None:
    result = process("sample", "-o", "x.png", "--server", nobody)
    assert result.returncode == 3
    assert result.stderr.startswith(f"Error: no infosink server answers at {nobody}; start one with: infosink-serve")
    assert result.stderr.count("\n") == 1
    assert files(folder) == []


def test_exit_code_3_where_the_server_is_silent(infosink: Run, silent: str) -> None:
    result = infosink("models", "--server", silent, "--timeout", "0.2")
    assert result.exit_code == 3
    assert "--timeout" in result.stderr


def test_exit_code_4_where_the_server_refuses(process: RunProcess, folder: Path) -> None:
    result = process("sample", "--label", "5", "-o", "x.png")
    assert result.returncode == 4
    assert result.stderr.count("\n") == 1
    assert all(f'"{label}"' in result.stderr for label in "0175")
    assert files(folder) == []


@pytest.mark.parametrize("status", ["INTERNAL", "UNKNOWN"])
def test_exit_code_1_where_the_server_fails(infosink: Run, careless: Start, folder: Path, status: str) -> None:
    address = careless(fail=(grpc.StatusCode[status], "request id 5f"))
    result = infosink("sample", "-o", "x.png", "--server", address, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)
    assert (error["error"], error["code"]) == ("failed", status)
    assert "request id 5f" in error["message"]
    assert files(folder) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "exit_code"),
    [
        (["sample", "-o", "missing/x.png"], "failed", 1),
        (["sample", "-o", "x.jpg"], "usage", 2),
        (["sample", "-o", "x.png", "--server", "nobody"], "unreachable", 3),
        (["sample", "-o", "x.png", "--label", "5"], "refused", 4),
    ],
)
def test_errors_are_json_where_asked_for(
    infosink: Run, nobody: str, arguments: list[str], kind: str, exit_code: int
) -> None:
    result = infosink(*[nobody if argument == "nobody" else argument for argument in arguments], "--json")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert error["error"] == kind
    assert error["message"]
    assert error.get("code") == ("FAILED_PRECONDITION" if kind == "refused" else None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sample", "--label", "7", "--category", "3", "-o", "x.png"], "not both"),
        (["sample", "--style", "nan", "-o", "x.png"], "nan"),
        (["sample", "--style", "inf", "-o", "x.png"], "inf"),
        (["sample", "--style", "much", "-o", "x.png"], "much"),
        (["sample", "--count", "0", "-o", "x.png"], "--count"),
        (["sample", "--seed", "-1", "-o", "x.png"], "--seed"),
        (["sample", "--seed", str(2**64), "-o", "x.png"], "--seed"),
        (["sample", "--first-index", str(2**64 - 1), "-o", "x.png"], "--first-index"),
        (["sample", "-o", "x.jpg"], ".npz"),
        (["sample", "-o", "x"], "/"),
        (["sample"], "--output"),
        (["sample", "-o", "x.png", "--server", "localhost"], "HOST:PORT"),
        (["sample", "-o", "x.png", "--server", "localhost:65536"], "65535"),
        (["sample", "-o", "x.png", "--server", "localhost:0"], "65535"),
        (["sample", "-o", "x.png", "--server", "unix:" + 108 * "x"], "107"),
        (["sample", "-o", "x.png", "--timeout", "0"], "--timeout"),
        (["sample", "-o", "x.png", "--timeout", "nan"], "--timeout"),
        (["sample", "-o", "x.png", "--timeout", "86401"], "--timeout"),
        (["sample", "-o", "x.png", "--timeout", "long"], "--timeout"),
        (["sample", "-o", "x.png", "--label", "\udcff"], "'\\udcff' is not UTF-8"),
        (["sample", "-o", "x.png", "--model", "\udcff"], "'\\udcff' is not UTF-8"),
        (["sample", "-o", "x.png", "--server", "\udcff:1"], "'\\udcff:1' is not UTF-8"),
        (["traverse", "-o", "x.png", "--label", "\udcff"], "'\\udcff' is not UTF-8"),
        (["models", "\udcff"], "'\\udcff' is not UTF-8"),
        (["sample", "--count", "10001", "-o", "x.png"], ".npz"),
        (["traverse", "--steps", "101", *["--category", "0"] * 100, "-o", "x.png"], "--steps"),
        (["batch", "-o", "x.png"], ".npz"),
        (["traverse", "-o", "x.npz"], ".png"),
        (["traverse", "-o", "x.png", "--steps", "1"], "--steps"),
        (["traverse", "-o", "x.png", "--label", "7", "--category", "3"], "not both"),
        (["traverse", "-o", "x.png", "--style-index", "3"], "2 styles"),
        (["traverse", "-o", "x.png", "--style", "0.5"], "2 styles"),
        (["infer"], "IMAGES"),
    ],
)
def test_wrong_usage_is_named(infosink: Run, folder: Path, arguments: list[str], word: str) -> None:
    result = infosink(*arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert files(folder) == []


@pytest.mark.parametrize(("command", "remedy"), [("traverse", "--category"), ("batch", "--by category")])
def test_a_model_without_labels_is_asked_by_category(infosink: Run, careless: Start, command: str, remedy: str) -> None:
    def unlabelled(served: v1.ServedModel) -> None:
        for category in served.model.latent_space.categories:
            category.label = ""

    output = "x.png" if command == "traverse" else "x.npz"
    server = careless(describe=unlabelled)
    result = infosink(command, "-o", output, "--server", server)
    assert result.exit_code == 2
    assert f"bears a label; take {remedy}" in result.stderr
    by_category = ["--by", "category"] if command == "batch" else ["--category", "1"]
    assert infosink(command, "-o", output, "--server", server, *by_category).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sample", "-o", "x" * 300 + ".png"], "too long"),
        (["batch", "-o", "x" * 300 + "/"], "too long"),
        (["sample", "-o", "taken/../" * 500 + "x.png"], "does not exist"),
        (["sample", "--model", "points", "-o", "x/"], ".npz"),
        (["traverse", "--model", "points", "-o", "x.png"], "points"),
        (["sample", "-o", "taken/"], "not empty"),
        (["sample", "-o", "taken/file/"], "in the way"),
        (["sample", "-o", "."], "not empty"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    infosink: Run, folder: Path, arguments: list[str], word: str
) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "file").touch()
    result = infosink(*arguments)
    assert result.exit_code == 1
    assert word in result.stderr
    assert files(folder) == ["taken"]
    assert files(folder / "taken") == ["file"]


def test_a_path_too_long_for_a_temporary_neighbour_is_refused_before_any_work(
    infosink: Run, folder: Path, nobody: str
) -> None:
    (folder / "a").mkdir()
    # Linux has paths of 4,095 bytes, and this one still fits.
    room = 4085 - len(f"{folder}/x.png")
    path = f"{folder}/" + "a/../" * (room // 5) + "x.png"
    Path(path).touch()
    result = infosink("sample", "-o", path, "--server", nobody)
    assert result.exit_code == 1
    assert "too long" in result.stderr


def test_the_longest_name_that_fits_is_written(infosink: Run, folder: Path) -> None:
    for suffix in (".png", ".npz"):
        assert infosink("sample", "-o", (255 - len(suffix)) * "x" + suffix).exit_code == 0
    assert [len(name) for name in files(folder)] == [255, 255]


def test_a_picture_too_large_for_its_images_is_refused_before_any_work(infosink: Run, careless: Start) -> None:
    def large(served: v1.ServedModel) -> None:
        served.model.sample_space.image.height = served.model.sample_space.image.width = 4000

    result = infosink("sample", "-o", "x.png", "--server", careless(describe=large))
    assert result.exit_code == 1
    assert ".npz" in result.stderr
