"""Compiled programs that are kept for the next process: a server's workers, a command that runs again.

They lie in the user's cache (``$XDG_CACHE_HOME/onnx-fhe/circuits``, else ``~/.cache/...``) and are made anew
wherever anything that they depend on has changed: the program, its settings, Concrete, the processor.
``ONNX_FHE_CACHE`` names another folder; empty, it switches the cache off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from concrete import compiler

from .library import Compiled, compile_library
from .store import Settings

FOLDER = "ONNX_FHE_CACHE"
HASHES = "hashes.json"
"""What was written, by file; a file that is something else is made anew."""
MAX_KEPT_PROGRAMS = 64
"""Programs in the cache; past that the ones that were used least recently go."""


def cached_library(
    mlir: str, settings: Settings, *, simulated: bool = False, parallel: bool = True
) -> Compiled:
    """As ``library.compile_library``, from the cache where it is there."""
    root = _root()
    if root is None:
        return compile_library(mlir, settings, simulated=simulated, parallel=parallel)
    folder = root / _key(mlir, settings, simulated, parallel)
    if _is_whole(folder):
        with suppress(RuntimeError, OSError):
            os.utime(folder)
            return Compiled(compiler.Library(str(folder)))
    made = compile_library(mlir, settings, simulated=simulated, parallel=parallel)
    with suppress(OSError):
        _keep(Path(made.library.get_output_dir_path()), folder)
    return made


def _root() -> Path | None:
    """The folder of the cache, which nobody else can write to; None where there can be none."""
    given = os.environ.get(FOLDER)
    if given == "":
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(given) if given else Path(home) / "onnx-fhe" / "circuits"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = root.stat()
    except (OSError, RuntimeError):
        return None  # such as a user without a home
    # What lies there is loaded as code.
    return root if found.st_uid == os.getuid() and not found.st_mode & 0o022 else None


def _key(mlir: str, settings: Settings, simulated: bool, parallel: bool) -> str:
    parts = [
        mlir,
        dataclasses.asdict(settings),
        simulated,
        parallel,
        version("concrete-python"),
        _processor(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def _processor() -> str:
    """What the compiled code depends on: the kind of processor, and what it can do."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return " ".join(sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()} {platform.platform()}"


def _is_whole(folder: Path) -> bool:
    try:
        hashes = json.loads((folder / HASHES).read_bytes())
        return bool(hashes) and all(_hash(folder / name) == wanted for name, wanted in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _keep(made: Path, folder: Path) -> None:
    """Copy a compiled program into the cache, whole or not at all."""
    shutil.rmtree(folder, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        for file in made.iterdir():
            shutil.copy2(file, temporary / file.name)
        hashes = {f.name: _hash(f) for f in temporary.iterdir()}
        (temporary / HASHES).write_text(json.dumps(hashes))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    kept = [f for f in folder.parent.iterdir() if not f.name.startswith(".")]
    for old in sorted(kept, key=lambda f: f.stat().st_mtime)[:-MAX_KEPT_PROGRAMS]:
        shutil.rmtree(old, ignore_errors=True)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
