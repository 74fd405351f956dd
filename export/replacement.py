"""Putting several new files in the place of old ones."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def replace_files(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Writes all files under temporary names, and only when all are on the disk renames them, in order.

    Each file is replaced whole or not at all. A failure before the renames changes nothing, and folders that were
    made are removed again; what stops the renames halfway leaves the first files new and the others old.

    Args:
        directory: of the files; made if missing.
        contents: of each file, by name.

    Raises:
        OSError: a folder or file cannot be written.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    temporaries: dict[Path, Path] = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            # Nobody can have put a link where nobody can guess the name, and "x" follows none.
            temporary = directory / f".{secrets.token_hex(8)}.partial"
            with temporary.open("xb") as file:
                temporaries[temporary] = directory / name
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise
