"""Standard output that is closed or full: one message instead of a traceback, a defect, or nothing at all."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast


class _Guarded:
    """A stream whose failures are a fault of the request, and are not forgotten."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is None:
            if text:
                self.failure = _failed("it is closed")
                raise self.failure
            return 0
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            with self._told():
                self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        # Concrete's runtime takes the signal for a crash of its own, and dumps its settings.
        if hasattr(signal, "SIGPIPE") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            yield
        except OSError as error:
            self.failure = _failed(error.strerror or str(error))
            raise self.failure from error


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While inside, standard output raises ``OutputError`` where it cannot be written.

    Raises:
        OutputError: What was written does not reach its end, though all else went well.
    """
    real = sys.stdout
    if real is None:
        # Or else the next file that is opened becomes standard output, with what libraries print.
        _take_nowhere(1)
    if sys.stderr is None:
        _take_nowhere(2)
        sys.stderr = os.fdopen(2, "w")
    guard = _Guarded(real)
    sys.stdout = cast("TextIO", guard)
    try:
        yield
    except SystemExit as ended:
        _settle(guard)
        if guard.failure is not None and not ended.code:
            raise guard.failure from None
        raise
    else:
        _settle(guard)
        if guard.failure is not None:
            raise guard.failure
    finally:
        _settle(guard)
        sys.stdout = real


def _settle(guard: _Guarded) -> None:
    """Write what is left; where that fails, keep Python from trying again when it ends."""
    with contextlib.suppress(Exception):
        guard.flush()
    if guard.failure is not None:
        _take_nowhere(1)


def say(text: str) -> None:
    """Print a message on standard error, as far as there is one."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # Python would try again when it ends, and exit with a status of its own.
        _take_nowhere(2)


def _failed(found: str) -> Exception:
    from ..ir.errors import OutputError

    return OutputError(
        "standard output cannot be written",
        found=found,
        do="give it somewhere to go that takes all of it (files that the command writes are complete)",
    )


def _take_nowhere(descriptor: int) -> None:
    """Have the file descriptor lead nowhere, so that what is left to be written is lost in silence."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
