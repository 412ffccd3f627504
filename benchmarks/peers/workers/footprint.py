"""``footprint.py DISTRIBUTION MODULE``: what it takes to have the one and import the other, as JSON."""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(name: str) -> dict[str, int]:
    """Distribution ``name`` and what it requires on this machine, without optional extras."""
    found: dict[str, int] = {}
    waiting = [(name, frozenset[str]())]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        found[canonicalize_name(name)] = _bytes(installed)
        for line in installed.requires or []:
            wanted = Requirement(line)
            asked = [{"extra": e} for e in (*extras, "")]
            if wanted.marker is None or any(wanted.marker.evaluate(a) for a in asked):
                waiting.append((wanted.name, frozenset(wanted.extras)))
    return found


def main(name: str, module: str) -> None:
    """Seconds and memory of an import, and bytes on disk of each distribution that is required."""
    began = time.perf_counter()
    importlib.import_module(module)
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    found = {
        "import_seconds": seconds,
        "import_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "installed_bytes": closure(name),
    }
    print(json.dumps(found))


def _bytes(installed: Distribution) -> int:
    files = [installed.locate_file(f) for f in installed.files or []]
    return sum(f.stat().st_size for f in files if f.is_file())  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:])
