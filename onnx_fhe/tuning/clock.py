"""The time that a search was given: what is left of it, and work that ends when it is over."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

GRACE_SECONDS = 10.0
"""Time that a search which was stopped may still take to leave its best circuit."""
TICK_SECONDS = 0.25
"""Time between two looks at what runs."""


class OutOfTimeError(BaseException):
    """The time is over. No ``Exception``: what handles errors of passes must not handle this."""


@dataclass
class Clock:
    """Counts from when it was made.

    Attributes:
        seconds: What was given; None for no limit.
        began: When it was made.
        stopped: The user asked for an end.
    """

    seconds: float | None = None
    began: float = field(default_factory=time.monotonic)
    stopped: bool = False

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.began

    def left(self) -> float:
        """Seconds that are left; infinite where there is no limit."""
        return float("inf") if self.seconds is None else self.seconds - self.elapsed

    def stop(self) -> None:
        """The user asked for an end: a moment is left to finish what is there."""
        self.stopped = True
        self.seconds = min(self.elapsed + self.left(), self.elapsed + GRACE_SECONDS)


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise inside when so much time has passed.

    Signals do that, so it works in the main thread alone; elsewhere there is no bound. Native code is not
    interrupted: the error comes when it returns.

    Raises:
        OutOfTimeError: The time is over.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds == float("inf") or not usable:
        yield
        return
    if seconds <= 0:
        raise OutOfTimeError

    def ended(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ended)
    outer, began = signal.setitimer(signal.ITIMER_REAL, seconds)[0], time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            # What bounds this from outside goes on.
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - began)))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that have a handler in Python wait until this ends: what is being written is written whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    known = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    handlers = {n: h for n, h in known.items() if callable(h)}
    for number in handlers:
        signal.signal(number, lambda number, frame: waiting.append(number))  # noqa: ARG005
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for one in waiting:
            handlers[signal.Signals(one)](one, None)


def wait_for(futures: list[Future[Any]], seconds: float, until: str = ALL_COMPLETED) -> set[Future[Any]]:
    """Wait for futures, and return those that are done. Signals come between two looks: inside, an exception
    of a handler would leave locks of the futures as they are.
    """
    end = time.monotonic() + seconds
    while True:
        with undisturbed():
            done, left = wait(futures, min(TICK_SECONDS, max(0.0, end - time.monotonic())), until)
        if not left or (done and until == FIRST_COMPLETED) or time.monotonic() >= end:
            return done
