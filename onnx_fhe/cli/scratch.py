"""A folder for all temporary files of a command, which is removed however the command ends.

Concrete leaves the libraries that it compiles in the folder for temporary files, and a process that is killed
cannot tidy up: the process that waits for the command (``watch``) does.
"""

from __future__ import annotations

import os
import shutil
import tempfile


def make() -> str | None:
    """A new folder; None where there is nowhere to make it."""
    try:
        return tempfile.mkdtemp(prefix="onnx-fhe-")
    except OSError:
        return None


def use(folder: str | None) -> None:
    """Have this process and those that it starts put temporary files there."""
    if folder is not None:
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None


def remove(folder: str | None) -> None:
    """Remove it with all that is in it."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
