"""What runs on a worker of a Dask cluster: calls from bytes to bytes, with evaluation keys alone."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

from .ciphertexts import Call
from .server import Server, compute

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")

MAX_HALVES = 8
"""Server halves that a worker keeps compiled; it has few circuits to serve at a time."""
MAX_KEYS = 8
"""Evaluation keys that a worker keeps ready; in use they are several times as large as they are sent."""


class _Ready:
    """A server with evaluation keys, ready to compute.

    Args:
        server: The server.
        keys: The keys.
        batch: Samples of one call.
    """

    def __init__(self, server: Server, keys: bytes, batch: int) -> None:
        self._side = server.side(batch)
        self._keys = self._side.parse_keys(keys)
        self._lock = threading.Lock()
        self._used = False

    def evaluate(self, call: Call) -> Call:
        """One call, on this thread alone."""
        with self._lock:
            # The first use makes the keys ready, which no two threads may do at once.
            if not self._used:
                found = self._compute(call)
                self._used = True
                return found
        return self._compute(call)

    def _compute(self, call: Call) -> Call:
        return compute(self._side, self._keys, call, alone=True)


_halves: OrderedDict[str, Server] = OrderedDict()
_ready: OrderedDict[tuple[str, str], _Ready] = OrderedDict()
_lock = threading.Lock()


def evaluate_call(
    circuit: str, half: bytes, identity: str, keys: bytes, batch: int, call: Call
) -> tuple[Call, float]:
    """Evaluate one call.

    Args:
        circuit: Identity of the circuit.
        half: Content of the server's half.
        identity: Identity of the evaluation keys.
        keys: Their content.
        batch: Samples of a call.
        call: Ciphertexts by name.

    Returns:
        The encrypted results by name, and the seconds of computing them.

    Raises:
        ArtifactError, DataError: The half, the keys or the ciphertexts are damaged.
    """
    with _lock:
        server = _kept(_halves, circuit, lambda: Server.load(half), MAX_HALVES)
        ready = _kept(_ready, (circuit, identity), lambda: _Ready(server, keys, batch), MAX_KEYS)
    began = time.perf_counter()
    return dict(ready.evaluate(call)), time.perf_counter() - began


def _kept(kept: OrderedDict[Name, Value], name: Name, make: Callable[[], Value], most: int) -> Value:
    """What has this name, made where it is missing; what was asked for longest ago goes."""
    if name not in kept:
        kept[name] = make()
    kept.move_to_end(name)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[name]
