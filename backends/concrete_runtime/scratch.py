"""Folders for the libraries that Concrete compiles: it never removes its own."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import weakref
from typing import Any


def scratch_folder() -> str:
    """A new folder inside one that is removed when this process ends in good order."""
    return tempfile.mkdtemp(dir=_folder(os.getpid()))


@functools.cache
def _folder(process: int) -> str:
    folder = tempfile.mkdtemp(prefix="onnx-fhe-")
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: str, process: int) -> None:
    # A forked process inherits what is to be done at the end.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def removed_with(made: Any, library: Any) -> Any:
    """``made``, which holds a ``library`` of Concrete; the folder of the library goes when ``made`` does."""
    weakref.finalize(made, _remove, library.get_output_dir_path(), os.getpid())
    return made
