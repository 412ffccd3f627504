"""Folders for the libraries that Concrete compiles: it never removes its own."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import weakref
from typing import Any

from concrete.fhe.compilation import server


class _Scratch:
    """What Concrete's servers use of ``tempfile``, with folders inside ours."""

    TemporaryDirectory = tempfile.TemporaryDirectory

    @staticmethod
    def mkdtemp() -> str:
        return tempfile.mkdtemp(dir=_folder(os.getpid()))


@functools.cache
def _folder(process: int) -> str:
    """The folder of a process; it is removed when the process ends in good order."""
    folder = tempfile.mkdtemp(prefix="onnx-fhe-")
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: str, process: int) -> None:
    # A forked process inherits what is to be done at the end.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def install() -> None:
    """Have Concrete make its folders inside one that is removed when this process ends.

    It has no setting for that, and what it leaves when it refuses a circuit is in nobody's hands.
    """
    server.tempfile = _Scratch


def removed_with(made: Any) -> Any:
    """``made``, a server of Concrete; its folder goes when it does."""
    folder = made._library.get_output_dir_path()
    weakref.finalize(made, _remove, folder, os.getpid())
    return made
