"""The workers of a Dask cluster in the place of the service's own: the same queue, limits and answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from ..cluster import connect
from ..ir.errors import ArtifactError, UserError
from ..sides.dask_broadcast import Broadcast
from ..sides.keys import EvaluationKeys
from ..sides.server import Server
from .cluster_call import answer_call
from .outcomes import LostKeysError, Say, lost, settle, too_long
from .settings import Settings
from .units import Unit, Units

LOOK_SECONDS = 1.0
"""Between two looks at how many threads the cluster has."""
RESTART_SECONDS = 20
"""For a worker of the cluster that is ended because its call took too long."""


class ClusterWorkers:
    """One thread here for each thread of the cluster: it hands over a call, and waits for the answer.

    Args:
        settings: The models, and how long a call may take.
        address: Of the cluster's scheduler.
        units: What the workers do.
        say: Called with what happens, for the log and the metrics.

    Attributes:
        ready: Threads of the cluster's workers.

    Raises:
        ArtifactError: A server half cannot be read.
        MissingPackageError: Dask is not installed.
        UserError: There is no cluster, it has no workers, or they lack onnx-fhe.
    """

    def __init__(self, settings: Settings, address: str, units: Units, say: Say) -> None:
        self._settings, self._address, self._units, self._say = settings, address, units, say
        self._halves = {name: path.read_bytes() for name, path in settings.models.items()}
        self._batches = {
            (name, entry.id): entry.batch
            for name, half in self._halves.items()
            for entry in Server.load(half).header.circuits
        }
        self._join()
        self._ended = threading.Event()
        self._slots: list[threading.Thread] = []
        self._busy: set[int] = set()
        self._looking = threading.Thread(target=self._look, name="cluster", daemon=True)
        self.ready = 0

    @property
    def busy(self) -> int:
        """Calls that are with the cluster."""
        return len(self._busy)

    @property
    def pids(self) -> list[int]:
        """Process numbers of workers on this machine: none."""
        return []

    def start(self) -> None:
        """Begin to hand over calls, and return at once."""
        self._looking.start()

    def stop(self) -> None:
        """Leave the cluster; ``Units.close`` has to come before."""
        self._ended.set()
        self._shared.clear()
        with contextlib.suppress(Exception):
            self._client.close()

    def _join(self) -> None:
        self._client = connect(self._address, "server")
        self._shared = Broadcast(self._client)

    def _look(self) -> None:
        """Follow the number of the cluster's threads; join the cluster again where its scheduler was gone."""
        while not self._ended.is_set():
            try:
                found = sum(self._client.nthreads().values())
            except Exception:  # noqa: BLE001 - whatever it is, there is no cluster at the moment
                found = 0
            if found != self.ready:
                self._say("cluster", {"threads": found})
            self.ready = found
            while len(self._slots) < found:
                slot = threading.Thread(target=self._serve, args=(len(self._slots),), daemon=True)
                self._slots.append(slot)
                slot.start()
            if self._client.status == "closed" and not self._ended.is_set():
                with contextlib.suppress(UserError):
                    self._join()
            self._ended.wait(LOOK_SECONDS)

    def _serve(self, number: int) -> None:
        """Hand over one call after the other."""
        while not self._ended.is_set():
            if number >= self.ready:
                self._ended.wait(LOOK_SECONDS)
                continue
            unit = self._units.take(number, frozenset())
            if unit is None:
                return
            self._busy.add(number)
            unit.attempts += 1
            try:
                self._evaluate(unit, number)
            except Exception as error:  # noqa: BLE001 - a worker, or the scheduler, was lost
                self._say("worker ended", {"worker": number, "exit": type(error).__name__})
                lost(unit, number, self._say, self._units, self._ended)
            finally:
                self._busy.discard(number)

    def _evaluate(self, unit: Unit, number: int) -> None:
        seconds = self._settings.limits.call_seconds
        try:
            keys = self._shared.keys(unit.keys, lambda: _content(unit))
        except ArtifactError:
            unit.future.set_exception(LostKeysError(unit.path))
            return
        future: Any = self._client.submit(
            answer_call,
            unit.circuit,
            self._shared.half(unit.model, self._halves[unit.model]),
            unit.keys,
            keys,
            self._batches[unit.model, unit.circuit],
            dict(unit.call),
            pure=False,
        )
        try:
            answer = future.result(timeout=seconds)
        except (TimeoutError, asyncio.TimeoutError):
            unit.future.set_exception(too_long(seconds))
            self._end(future)
            return
        settle(unit, answer, number, self._say)

    def _end(self, future: Any) -> None:
        """End the worker that computes a call, whose thread nothing else stops; its nanny starts it again."""
        with contextlib.suppress(Exception):
            where = [w for w, calls in self._client.processing().items() if future.key in calls]
            self._client.cancel([future], force=True)
            self._client.restart_workers(where, timeout=RESTART_SECONDS, raise_for_error=False)


def _content(unit: Unit) -> bytes:
    """The evaluation keys of a call.

    Raises:
        ArtifactError: Their file is gone, damaged, or another one.
    """
    keys = EvaluationKeys.load(unit.path)
    if keys.id != unit.keys:
        raise ArtifactError("these are other keys")
    return keys.content
