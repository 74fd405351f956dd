"""Where a figure comes from: machine, date, commit and versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from infosink.training.source_commit import source_commit


def provenance(*packages: str) -> dict[str, str | int | None]:
    """Facts to keep beside every figure."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": source_commit(),
        "machine": f"{platform.machine()}, {processor()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
