"""Stopping a search with Ctrl-C, or as systems do that want a process to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from . import output


def say(journal: Path) -> None:
    """Tell the user who stopped a search that nothing is lost."""
    output.say(f"stopped; the same command goes on where it was ({journal})", err=True)


@contextlib.contextmanager
def keeping(journal: Path) -> Iterator[None]:
    """While inside, tell the user who stops the search that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        say(journal)
        raise


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """While inside, a request to end the process acts as Ctrl-C: the best circuit so far is written first."""

    def asked(number: int, frame: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = {n: signal.signal(n, asked) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
