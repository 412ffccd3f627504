"""What becomes of a call once a worker answered, was lost, or took too long: the same wherever it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from .refusals import RETRY_SECONDS, Refusal, unfit
from .units import ATTEMPTS, Unit, Units
from .worker import DEFECT, DONE, LOST_KEYS, Answer

Say = Callable[[str, Mapping[str, object]], None]


def settle(unit: Unit, answer: Answer, worker: int, say: Say) -> None:
    """Give whoever waits what a worker said.

    Args:
        unit: The call.
        answer: What came of it.
        worker: Number of the worker.
        say: Called with what happens, for the log and the metrics.
    """
    if answer.kind == DONE:
        unit.future.set_result(answer.call)
    elif answer.kind == LOST_KEYS:
        unit.future.set_exception(LostKeysError(unit.path))
    elif answer.kind == DEFECT:
        say("defect", {"worker": worker, **answer.told})
        unit.future.set_exception(
            Refusal(500, "defect", "the service could not compute this", do="tell its operator")
        )
    else:
        unit.future.set_exception(unfit(answer.told))


def lost(unit: Unit, worker: int, say: Say, units: Units, ended: threading.Event) -> None:
    """A worker was lost with a call: another one tries it, or whoever waits is told.

    Args:
        unit: The call.
        worker: Number of the worker.
        say: Called with what happens, for the log and the metrics.
        units: What waits for workers.
        ended: Whether the service ends.
    """
    say("call lost", {"worker": worker, "attempt": unit.attempts})
    if unit.attempts < ATTEMPTS and not ended.is_set():
        units.again(unit)
        return
    unit.future.set_exception(
        Refusal(
            503,
            "worker-lost",
            "the processes that computed this were lost, twice",
            do="ask again; if it goes on, make new keys, and tell the service's operator",
            retry=RETRY_SECONDS,
        )
    )


class LostKeysError(Exception):
    """The file of keys is gone or damaged.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("the file of keys is gone or damaged")
        self.path = path


def too_long(seconds: float) -> Refusal:
    """A call took longer than it may."""
    return Refusal(
        503,
        "too-long",
        "the circuit took longer than it may",
        allowed=f"{seconds:g} s a call",
        do="ask again; if it goes on, tell the service's operator",
        retry=RETRY_SECONDS,
    )
