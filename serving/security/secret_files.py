"""Small files that the operator keeps for the server, and may replace while it serves: certificates, keys, tokens."""

import logging
import stat
from pathlib import Path

from ..errors import StartupError

_LARGEST = 2**20
_logger = logging.getLogger(__name__)


def read_secret(path: Path, option: str) -> bytes:
    """What the file holds.

    Args:
        path: The file.
        option: The one that names it, for messages.

    Raises:
        StartupError: If it cannot be read, is no regular file, or exceeds 1 MiB.
    """
    try:
        # To open a pipe without a writer would wait for good.
        regular = stat.S_ISREG(path.stat().st_mode)
        contents = _beginning(path) if regular else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartupError(f"cannot read {path}: {reason}: give a file that can be read to {option}") from None
    if not regular:
        raise StartupError(f"{path} is no regular file: give one to {option}")
    if len(contents) > _LARGEST:
        raise StartupError(f"{path} exceeds 1 MiB: give a smaller file to {option}")
    return contents


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST + 1)


def warn_of_readers(path: Path) -> None:
    """Says so in the log where every user of the machine may read the file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        # Whoever reads it next says why.
        return
    if mode & stat.S_IROTH:
        _logger.warning("%s can be read by every user of this machine: chmod o-r it", path)
