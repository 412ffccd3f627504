"""Folders for what Concrete's tracer compiles: it never removes its own."""

from __future__ import annotations

import tempfile

from concrete.fhe.compilation import server

from ..concrete_runtime.scratch import scratch_folder


class _Scratch:
    """What Concrete's servers use of ``tempfile``, with folders inside ours."""

    TemporaryDirectory = tempfile.TemporaryDirectory

    @staticmethod
    def mkdtemp() -> str:
        return scratch_folder()


def install() -> None:
    """Have Concrete make its folders inside one that is removed when this process ends.

    It has no setting for that, and what it leaves when it refuses a circuit is in nobody's hands.
    """
    server.tempfile = _Scratch
