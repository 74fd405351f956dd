"""Where a command writes: the path is checked before any work, and takes the finished output in one step."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import UnwritableOutputError

NOTHING_WRITTEN = "nothing was written"
"""The note on an error or an interrupt that struck before the output took its place."""


class Form(Enum):
    """How samples are written; the value is what the output's name ends in."""

    PICTURE = ".png"
    ARRAYS = ".npz"
    FOLDER = "/"


@dataclass(frozen=True)
class Destination:
    """An output's path, and the form that its name asks for.

    Attributes:
        path: A file, or a folder for `Form.FOLDER`.
        form: Derived from the suffix; an existing folder or a trailing slash means `Form.FOLDER`.
    """

    path: Path
    form: Form

    @classmethod
    def parse(cls, text: str, forms: tuple[Form, ...]) -> "Destination":
        """The destination that `text` names.

        Raises:
            ValueError: If its form is none of `forms`.
        """
        path = Path(text)
        if text.endswith(("/", os.sep)) or _is_folder(path):
            form: Form | None = Form.FOLDER
        else:
            form = next((form for form in (Form.PICTURE, Form.ARRAYS) if path.suffix.lower() == form.value), None)
        if form not in forms or form is None:
            named = [f"a folder ending in {form.value}" if form is Form.FOLDER else form.value for form in forms]
            raise ValueError(f"{text!r} names no output that can be written here; let it end in {' or '.join(named)}")
        return cls(path, form)

    def check(self) -> None:
        """Makes sure that the output can be written.

        Raises:
            UnwritableOutputError: If the folder around it is missing or read-only, or something is in the way.
        """
        with self._explained():
            path = self.path.absolute()
            parent = path.parent
            if not _is_folder(parent):
                raise UnwritableOutputError(
                    f"cannot write {self.path}: the folder {parent} does not exist; create it first"
                )
            if not os.access(parent, os.W_OK | os.X_OK):
                raise UnwritableOutputError(f"cannot write {self.path}: the folder {parent} is read-only; name another")
            if self.form is Form.FOLDER and os.path.lexists(path):
                self._check_existing_folder()
            for name in (path, _temporary_beside(path)):
                # Either may be too long, which only the file system knows.
                with suppress(FileNotFoundError):
                    name.lstat()

    def _check_existing_folder(self) -> None:
        if not self.path.is_dir():
            raise UnwritableOutputError(f"cannot write {self.path}: a file of that name is in the way; name another")
        if any(self.path.iterdir()):
            raise UnwritableOutputError(
                f"cannot write {self.path}: the folder is not empty; name a new one, or empty it"
            )
        if self.path.samefile(Path.cwd()) or self.path.is_mount():
            raise UnwritableOutputError(f"cannot write {self.path}: the folder is in use; name a new one inside it")

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A temporary sibling to write to; it takes the output's place at the end, and vanishes on any error.

        Yields:
            The path of an empty file, or of an empty folder for `Form.FOLDER`.

        Raises:
            UnwritableOutputError: If the disk is full, or the like.
        """
        with self._explained():
            path = self.path.absolute()
            temporary = _temporary_beside(path)
            try:
                if self.form is Form.FOLDER:
                    temporary.mkdir()
                else:
                    temporary.touch(exist_ok=False)
                yield temporary
                # An empty folder gives way as a file does.
                temporary.replace(path)
            except BaseException as error:
                if os.path.lexists(temporary):
                    error.add_note(NOTHING_WRITTEN)
                raise
            finally:
                with suppress(OSError):
                    if temporary.is_dir():
                        shutil.rmtree(temporary, ignore_errors=True)
                    else:
                        temporary.unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableOutputError(f"cannot write {self.path}: {error.strerror or error}") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A name too long is no folder's.
        return False


def _temporary_beside(path: Path) -> Path:
    # No longer for a long name.
    return path.with_name(f".infosink-{secrets.token_hex(4)}.partial")
