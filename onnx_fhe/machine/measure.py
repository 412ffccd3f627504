"""Measuring this machine: small circuits of some parameter sets, a minute or two."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.cost.timing import Measured
from ..backends.sides import Progress, quiet
from ..cores import usable_cores
from ..manifest import packages
from .profile import Profile, shipped

if TYPE_CHECKING:
    from ..backends.concrete.probe import Running, Times

PROBE_LOOKUPS = 24
"""Lookups of each circuit that is timed."""
SETS = (
    (1, 1.0),
    (2, 1.0),
    (2, 10.0),
    (3, 4.0),
    (3, 16.0),
    (4, 6.0),
    (4, 15.0),
    (4, 21.0),
    (5, 6.0),
    (5, 15.0),
    (5, 20.0),
    (6, 6.0),
)
"""(bits, precision) of the probes: what networks of 1 to 6 bits ask for; wider tables are extrapolated."""


def measure(
    repeats: int = 3, sets: tuple[tuple[int, float], ...] = SETS, progress: Progress = quiet
) -> Profile:
    """Measure this machine.

    Times are processor times of one thread, the least of several: other programs disturb them little. How
    well all cores work together is read from the clock on the wall: it needs a quiet machine.

    Args:
        repeats: Calls of each circuit; the best counts.
        sets: (bits, precision) of each probe.
        progress: Called with (what, done, total).
    """
    from ..backends.concrete.probe import Probe, Running, compile_probe, product_nanoseconds

    cores = usable_cores()
    found: list[Times] = []
    key_bytes: list[int] = []
    compile_probe(Probe(2, 1.0))
    empty, memory, one = _memory(), 0.0, None
    # The largest keys first: what the system counts is the most that was ever held.
    for i, (bits, precision) in enumerate(sorted(sets, reverse=True)):
        progress("measure bootstraps", i, len(sets))
        one = Running(Probe(bits, precision, count=PROBE_LOOKUPS))
        found.append(one.times(repeats))
        key_bytes.append(one.key_bytes)
        memory = memory or (_memory() - empty) / one.key_bytes
    progress("measure bootstraps", len(sets), len(sets))
    assert one is not None
    fixed, each = _line(key_bytes, [t.keygen for t in found])
    default = shipped()
    # The backend compiles twice, to compare parameter strategies.
    compile_seconds = 2 * median(t.compile for t in found)
    return Profile(
        processor=processor(),
        cores=cores,
        source="measured",
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        packages=packages(),
        measured=tuple(Measured(t.bootstrap, t.keyswitch, t.milliseconds, t.complexity) for t in found),
        call_seconds=median(t.call for t in found),
        nanoseconds_per_product=product_nanoseconds(repeats),
        keygen_seconds=fixed,
        keygen_seconds_per_byte=each,
        loop_efficiency=_efficiency(one.loop_speedup(repeats), cores),
        job_efficiency=_efficiency(_jobs(one, cores, repeats), cores),
        compile_seconds=compile_seconds,
        # Graphs are slower to compile in proportion: the default was measured on whole networks.
        compile_seconds_per_node=default.compile_seconds_per_node * compile_seconds / default.compile_seconds,
        memory_bytes=float(empty),
        memory_per_key_byte=max(1.0, memory),
    )


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _line(at: list[int], seen: list[float]) -> tuple[float, float]:
    """Constant and slope of a line through the points, both at least 0; relative errors count."""
    rows = np.array([[1.0, x] for x in at]) / np.array(seen)[:, None]
    constant, slope = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
    if constant < 0 or slope < 0:
        return 0.0, float(median(y / x for x, y in zip(at, seen, strict=True)))
    return float(constant), float(slope)


def _efficiency(speedup: float, cores: int) -> float:
    return float(min(1.0, max(0.05, speedup / cores)))


def _jobs(running: Running, cores: int, repeats: int) -> float:
    """How many times the throughput of one core all cores have, each with a sample of its own."""
    if cores == 1:
        return 1.0
    with ThreadPoolExecutor(cores) as pool:

        def together() -> None:
            list(pool.map(lambda _: running.evaluate(), range(cores)))

        return cores * _best(running.evaluate, repeats) / _best(together, repeats)


def _best(call: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def _memory() -> int:
    """Bytes that this process has held at most."""
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def load() -> float:
    """Programs that want a core on average of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
