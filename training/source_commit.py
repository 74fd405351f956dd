"""The commit that this code is of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """The commit, and whether files were changed since; None where this is no clone of the code's own repository."""
    module = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "-C", str(module.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        git("ls-files", "--error-unmatch", module.name)  # another repository around an installed copy says nothing
        changed = " and uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None
