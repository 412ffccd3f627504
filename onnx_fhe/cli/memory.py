"""Recognizing that memory ran out, whichever library reports it, and what to tell the user."""

from __future__ import annotations

import errno
import os

_IMPORT_BYTES = 400 * 2**20
"""Address space that importing takes. Where it ends meanwhile, OpenBLAS asks for it again for ever."""
_IMPORT_BYTES_PER_CORE = 40 * 2**20
"""What importing takes besides for each core, whose thread has buffers of its own."""

_WORDS = (
    "bad_alloc",
    "failed to map segment",
    "cannot allocate memory",
    "failed to allocate memory",
    "failed to allocate",
    "can't start new thread",
    "unable to allocate",
    "out of memory",
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's own error, or what a library made of it."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or any(w in text for w in _WORDS):
            return True
        if isinstance(seen, OSError) and seen.errno == errno.ENOMEM:
            return True
        if ".so not found" in text and limit() is not None:  # so z3 says, whatever keeps it from loading
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def is_hopeless() -> bool:
    """Whether this process may take less than any command needs."""
    found = limit()
    return found is not None and found < _IMPORT_BYTES + _IMPORT_BYTES_PER_CORE * (os.cpu_count() or 1)


def message() -> str:
    """What to say about it."""
    found = limit()
    if found is None:
        return "there is not enough memory for this"
    return (
        "there is not enough memory for this\n"
        f"  found:   a limit of {found / 2**20:.0f} MB on this process\n"
        "  do:      raise it (ulimit -v), or take a smaller model or fewer samples"
    )


def limit() -> int | None:
    """Bytes of address space that this process may take; None without a limit, or where there are none."""
    try:
        import resource
    except ImportError:
        return None
    found = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if found == resource.RLIM_INFINITY else found
