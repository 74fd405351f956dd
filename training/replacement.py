"""A file replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace_file(path: Path, contents: bytes | bytearray) -> None:
    """Writes a file under a temporary name beside it, which is then renamed.

    The name is each writer's own, so that two at once leave the one's file or the other's.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
