"""How many cores there are to compute on."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use, and that Concrete's loops will."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores
