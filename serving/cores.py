"""How many processor cores this process may use."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """The cores that this process may run on, or as many as its container may keep busy where that is fewer.

    Args:
        cgroup: Where the process's own control group shows, as it does in a container.
    """
    # Not every system can say which cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(cgroup) or cores))


def _quota(cgroup: Path) -> int | None:
    """The processor time that a control group may take, in whole cores; None where it is not limited."""
    try:
        # Version 2 of control groups has both numbers in one file, version 1 has a file for each.
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        # With part of a core to spare, one more thread is worth having.
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        # "max": not limited.
        return None
