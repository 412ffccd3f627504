"""Signals stay with the program: Concrete's runtime takes them when it first computes."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator

SIGNALS = range(1, 32)
"""All but those of real-time programs."""
HANDLER_BYTES = 1024
"""Bytes that a signal's handler is saved in: more than any system's ``struct sigaction`` has."""

_started = threading.Event()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While inside, the runtime may start; then every signal is handled as before.

    With its own handlers Ctrl-C would end the process at once, and a write to a closed pipe (as to a worker
    that was stopped) would count as a crash. By the C library, for Python's ``signal`` works in the main
    thread only and knows nothing of handlers that others set. Once the runtime has started it takes no more.
    """
    if _started.is_set() or sys.platform == "win32":
        yield
        return
    library = ctypes.CDLL(None)
    before = {n: ctypes.create_string_buffer(HANDLER_BYTES) for n in SIGNALS}
    known = {n: b for n, b in before.items() if library.sigaction(n, None, b) == 0}
    try:
        yield
        _started.set()
    finally:
        for number, handled in known.items():
            library.sigaction(number, handled, None)  # refused for those that nobody can handle
