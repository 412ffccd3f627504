"""An environment for Concrete ML: its exact pins do not go together with the packages of onnx-fhe."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from onnx_fhe.ir.errors import UserError
from onnx_fhe.ir.paths import write_bytes

VERSION = "1.9.0"
WORKERS = Path(__file__).resolve().parent / "workers"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
# Its own torch (2.3.1) comes with several GB of CUDA wherever no CPU build of it is on pip's path, and is not
# what computes. Newer ones want a newer setuptools than it pins.
REPLACED = ("torch", "setuptools")
FITS = "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))"


def prepare(
    folder: Path, python: Path | None, published: bool, flags: Sequence[str], say: Callable[[str], None]
) -> Path:
    """The interpreter of an environment with Concrete ML; made where it is not there yet.

    Args:
        folder: Where it is made.
        python: One that has Concrete ML already (nothing is made then), or that makes the environment.
        published: Install the torch that it pins, too.
        flags: Handed to pip.
        say: Told what is being done.

    Raises:
        UserError: No interpreter fits, or pip could not install it.
    """
    if python is not None and _has(python):
        return python
    inside = folder / "bin" / "python"
    done = folder / "installed.json"
    if done.is_file() and json.loads(done.read_text()) == {"version": VERSION, "published": published}:
        return inside
    say(f"setting up Concrete ML {VERSION} in {folder} (some minutes)")
    shutil.rmtree(folder, ignore_errors=True)
    maker = find_python(python)
    _run([maker, "-m", "venv", folder], "this interpreter makes no virtual environments")
    pip: list[str | Path] = [inside, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *flags]
    failed = "pip could not install Concrete ML"
    if published:
        _run([*pip, f"concrete-ml=={VERSION}"], failed)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            get = [*pip[:4], "download", "--quiet", "--no-deps", *flags]
            _run([*get, "--dest", scratch, f"concrete-ml=={VERSION}"], failed)
            wheel = next(Path(scratch).glob("*.whl"))
            wanted, limits = Path(scratch, "wanted.txt"), Path(scratch, "limits.txt")
            wanted.write_text("\n".join(pins(wheel)) + "\n")
            limits.write_text("\n".join(replacements(CONSTRAINTS.read_text())) + "\n")
            _run([*pip, "-r", wanted, "-c", limits], failed)
            _run([*pip, "--no-deps", wheel], failed)
    write_bytes(done, json.dumps({"version": VERSION, "published": published}).encode())
    return inside


def pins(wheel: Path) -> list[str]:
    """What a wheel requires, but for ``REPLACED``; those two by name alone."""
    with zipfile.ZipFile(wheel) as files:
        name = next(n for n in files.namelist() if n.endswith(".dist-info/METADATA"))
        lines = email.message_from_bytes(files.read(name)).get_all("Requires-Dist") or []
    kept = [line for line in lines if canonicalize_name(Requirement(line).name) not in REPLACED]
    return [str(Requirement(line)) for line in kept if "extra ==" not in line] + list(REPLACED)


def replacements(constraints: str) -> list[str]:
    """The versions of ``REPLACED`` that onnx-fhe is tested with."""
    lines = [line.strip() for line in constraints.splitlines()]
    return [line for line in lines if line.split("==")[0] in REPLACED]


def find_python(given: Path | None) -> Path:
    """An interpreter that Concrete ML has packages for: 3.10 to 3.12.

    Raises:
        UserError: The given one does not fit, or none was found.
    """
    # The one that runs this is one of those: onnx-fhe takes the same.
    names = [str(given)] if given else [sys.executable, "python3.11", "python3.10", "python3.12"]
    for name in names:
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", FITS], capture_output=True, check=False).returncode == 0:
            return Path(found)
    raise UserError(
        "no interpreter fits Concrete ML",
        found=", ".join(names),
        allowed="Python 3.10 to 3.12",
        do="name one with --peer-python PATH",
    )


def footprint(python: Path, distribution: str, module: str, repeats: int) -> dict[str, Any]:
    """Bytes on disk of a distribution and all that it requires, and what an import takes (median)."""
    told = [
        json.loads(
            subprocess.run(
                [python, WORKERS / "footprint.py", distribution, module],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(repeats)
    ]
    return {**told[0], "import_seconds": median(t["import_seconds"] for t in told)}


def _has(python: Path) -> bool:
    test = "import importlib.metadata as m, sys; sys.exit(m.version('concrete-ml') != sys.argv[1])"
    try:
        done = subprocess.run([python, "-c", test, VERSION], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _run(command: Sequence[str | Path], what: str) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        message = (
            "\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")) or done.stderr
        )
        raise UserError(what, found=message.strip()[-600:], do="see --pip-flags and --peer-python")
