"""Checkouts whose compilations are measured in turns, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from onnx_fhe.ir.errors import DataError

ONCE = Path(__file__).resolve().parent / "compile_once.py"
ROOMS = ("ir", "analysis", "passes", "backends")
"""Folders at the root of a checkout that are imported as parts of the package."""


@dataclass(frozen=True)
class Side:
    """A checkout.

    Attributes:
        name: What it is called in the report.
        revision: Its commit, with a plus where files were changed since.
        path: A folder from which its package is imported.
    """

    name: str
    revision: str
    path: Path


@dataclass(frozen=True)
class Task:
    """What is compiled, and how."""

    model: Path
    calibration: Path
    held_out: tuple[Path, ...]
    pipeline: str
    backend: str
    seed: int


def side(name: str, checkout: Path, folder: Path) -> Side:
    """Make the package of a checkout importable, whichever one is installed.

    Args:
        name: What it shall be called.
        checkout: Root of the working tree.
        folder: Where the links to its files go.

    Raises:
        DataError: It is no checkout of onnx-fhe.
    """
    rooms = [room for room in ROOMS if (checkout / room).is_dir()]
    # Older checkouts have fewer rooms.
    if not (checkout / "onnx_fhe").is_dir() or "ir" not in rooms:
        allowed = ", ".join(["onnx_fhe", *ROOMS])
        raise DataError("this is no checkout of onnx-fhe", file=str(checkout), allowed=allowed)
    path = folder / f"side-{name}"
    (path / "onnx_fhe").mkdir(parents=True)
    entries = [*(checkout / "onnx_fhe").iterdir(), *(checkout / room for room in rooms)]
    for entry in {e.name: e.resolve() for e in entries if e.name != "__pycache__"}.items():
        (path / "onnx_fhe" / entry[0]).symlink_to(entry[1])
    return Side(name, _revision(checkout), path)


def turns(task: Task, sides: Sequence[Side], repeats: int, patience: float) -> dict[str, dict[str, Any]]:
    """Compile on every side in turns, ``repeats`` times; the figures by side.

    A side that has failed once, or took longer than ``patience`` seconds, is not asked again.
    """
    runs: dict[str, list[dict[str, Any]]] = {s.name: [] for s in sides}
    failed: dict[str, str] = {}
    for _ in range(repeats):
        for one in sides:
            if one.name in failed:
                continue
            found = _once(task, one, patience)
            if "error" in found:
                failed[one.name] = found["error"]
            runs[one.name].append(found)
    return {name: {"error": failed[name]} if name in failed else medians(r) for name, r in runs.items()}


def _once(task: Task, one: Side, patience: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        given = {
            "model": str(task.model),
            "calibration": str(task.calibration),
            "held_out": [str(p) for p in task.held_out],
            "pipeline": task.pipeline,
            "backend": task.backend,
            "seed": task.seed,
            "package": str(one.path),
            "out": str(out),
        }
        line = [sys.executable, str(ONCE), json.dumps(given)]
        environment = {**os.environ, "PYTHONPATH": str(one.path)}
        try:
            done = subprocess.run(
                line, env=environment, capture_output=True, text=True, check=False, timeout=patience
            )
        except subprocess.TimeoutExpired:
            return {"error": f"more than {patience:.0f} s"}
        if not out.is_file():
            return {"error": f"exit status {done.returncode}: {done.stderr.strip()[-500:]}"}
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several compilations as one: the median of each time, and what came out of the first."""
    return {
        **runs[0],
        "seconds": median(r["seconds"] for r in runs),
        "processor_seconds": median(r["processor_seconds"] for r in runs),
        "all_seconds": [r["seconds"] for r in runs],
        "peak_memory_mb": max(r["peak_memory_mb"] for r in runs),
        **{k: {n: median(r[k].get(n, 0.0) for r in runs) for n in runs[0][k]} for k in ("stages", "passes")},
    }


def _revision(checkout: Path) -> str:
    def git(*arguments: str) -> str:
        line = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
