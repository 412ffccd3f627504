"""The processor time that imports take: what a command can do without, and none of it the fault of a file."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any


def onnx_ir() -> None:
    """Import onnx_ir, and sympy only when axes are calculated with: a third of the start otherwise."""
    from ..ir.deferred import without

    with without("sympy"):
        importlib.import_module("onnx_ir")


@contextlib.contextmanager
def around(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """While inside, call ``before`` and ``after`` around each import of this thread (not those inside it)."""
    real, thread, inside = builtins.__import__, threading.get_ident(), False

    def watched(*arguments: Any, **named: Any) -> Any:
        nonlocal inside
        if inside or threading.get_ident() != thread:
            return real(*arguments, **named)
        inside = True
        before()
        try:
            return real(*arguments, **named)
        finally:
            after()
            inside = False

    builtins.__import__ = watched
    try:
        yield
    finally:
        builtins.__import__ = real
