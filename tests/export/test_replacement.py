"""New files in the place of old ones, and what a failure leaves."""

import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from infosink.export.replacement import replace_files

EARLIER = {"q.onnx": b"the earlier q", "gen.onnx": b"the earlier gen"}
LARGEST = 100_000
SECOND_TOO_LARGE = {"q.onnx": b"a new q", "gen.onnx": bytes(LARGEST + 1)}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@contextmanager
def limited_files() -> Iterator[None]:
    """No file can grow beyond LARGEST, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    for name, content in EARLIER.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_files_are_replaced_and_nothing_else_is_left(earlier: Path) -> None:
    new = {"q.onnx": b"a new q", "gen.onnx": b"a new gen"}
    replace_files(earlier, new)
    assert contents(earlier) == new


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    replace_files(tmp_path / "a" / "b", EARLIER)
    assert contents(tmp_path / "a" / "b") == EARLIER


def test_a_full_disk_leaves_the_earlier_files_alone(earlier: Path) -> None:
    with limited_files(), pytest.raises(OSError, match="File too large"):
        replace_files(earlier, SECOND_TOO_LARGE)
    assert contents(earlier) == EARLIER


def test_a_folder_made_in_vain_is_removed_again(tmp_path: Path) -> None:
    with limited_files(), pytest.raises(OSError, match="File too large"):
        replace_files(tmp_path / "a" / "b", SECOND_TOO_LARGE)
    assert not list(tmp_path.iterdir())


def test_a_planted_link_is_not_followed(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even to somebody who guessed the name."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    victim = earlier / "victim"
    victim.write_bytes(b"precious")
    (earlier / ".guessed.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_files(earlier, {"q.onnx": b"a new q"})
    assert contents(earlier) == EARLIER | {"victim": b"precious", ".guessed.partial": b"precious"}
