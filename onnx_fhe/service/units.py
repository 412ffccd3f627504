"""What waits for a worker: single calls of circuits, in an order that is fair to all and spares keys."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from ..sides.ciphertexts import Call

MAX_PASSED = 16
"""Times that others may go first because a worker has their keys."""
ATTEMPTS = 2
"""Workers that a call may be lost with."""


@dataclass(eq=False)
class Unit:
    """One call of a circuit.

    Attributes:
        model: Name of the model.
        circuit: Which of its circuits (``CircuitEntry.id``).
        keys: Identity of the evaluation keys.
        path: Their file.
        call: The ciphertexts.
        future: What becomes of it.
        attempts: Workers that began it.
        turn: Its place in the order of all.
        passed: Times that others went first.
    """

    model: str
    circuit: str
    keys: str
    path: Path
    call: Call
    future: Future[Call] = field(default_factory=Future)
    attempts: int = 0
    turn: float = 0.0
    passed: int = 0


class Units:
    """The queue of all workers.

    Calls of several clients take turns, however many each of them sent (start-time fair queuing). Of those a
    worker takes the first whose keys it has, for to make keys ready takes as long as a call; then one whose
    keys no worker has; then any.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Unit] = []
        self._turn = 0.0
        self._last: dict[str, float] = {}
        self._loaded: dict[int, frozenset[str]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, units: Sequence[Unit]) -> None:
        """Have calls of one client done."""
        with self._changed:
            for unit in units:
                unit.turn = max(self._turn, self._last.get(unit.keys, 0.0)) + 1
                self._last[unit.keys] = unit.turn
            self._waiting += units
            self._changed.notify_all()

    def again(self, unit: Unit) -> None:
        """Have a call done by another worker, before all others."""
        with self._changed:
            self._waiting.insert(0, unit)
            self._changed.notify_all()

    def take(self, worker: int, loaded: frozenset[str]) -> Unit | None:
        """Wait for the next call of a worker.

        Args:
            worker: Its number.
            loaded: Identities of the keys that it has.

        Returns:
            The call; None when the service ends.
        """
        with self._changed:
            self._loaded[worker] = loaded
            while not self._closed:
                # What nobody waits for any more goes.
                self._waiting = [u for u in self._waiting if not u.future.cancelled()]
                if self._waiting:
                    unit = self._chosen(worker)
                    self._waiting.remove(unit)
                    if unit.attempts or unit.future.set_running_or_notify_cancel():
                        self._turn = max(self._turn, unit.turn)
                        self._last = {k: t for k, t in self._last.items() if t > self._turn}
                        return unit
                    continue
                self._changed.wait()
            return None

    def close(self) -> None:
        """No worker takes anything more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _chosen(self, worker: int) -> Unit:
        ordered = sorted(self._waiting, key=lambda u: u.turn)
        if ordered[0].attempts or ordered[0].passed >= MAX_PASSED:
            return ordered[0]
        own = self._loaded[worker]
        elsewhere = frozenset().union(*(v for k, v in self._loaded.items() if k != worker))
        chosen = min(ordered, key=lambda u: (0 if u.keys in own else 2 if u.keys in elsewhere else 1, u.turn))
        for unit in ordered:
            if unit.turn < chosen.turn:
                unit.passed += 1
        return chosen
