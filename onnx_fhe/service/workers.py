"""Worker processes, and a thread that watches over each: a crash costs one call, which is tried again.

Not a pool of ``pebble`` or of the standard library. The one takes the end of an idle worker for the end of
the pool, and ends calls by the clock on the wall, which may be set; the other gives up all calls when one
process ends. Neither lets a worker choose the call whose keys it has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from .outcomes import Say, lost, settle, too_long
from .settings import Settings
from .units import Units
from .worker import Answer, Task, work

START_SECONDS = 900.0
"""Seconds until a worker has to be ready: it compiles all circuits, unless that was done before."""
MAX_PAUSE_SECONDS = 30.0
"""Longest pause before a worker is started again that ended before it was ready."""


class Workers:
    """All workers of a service.

    Args:
        settings: Their number, the models, and how long a call may take.
        units: What they do.
        say: Called with what happens, for the log and the metrics.
    """

    def __init__(self, settings: Settings, units: Units, say: Say) -> None:
        self._watchers = [Watcher(n, settings, units, say) for n in range(settings.workers)]

    def start(self) -> None:
        """Start them, and return at once."""
        for watcher in self._watchers:
            watcher.start()

    @property
    def ready(self) -> int:
        """Workers that have compiled everything."""
        return sum(w.ready for w in self._watchers)

    @property
    def busy(self) -> int:
        """Workers that compute."""
        return sum(w.busy for w in self._watchers)

    @property
    def pids(self) -> list[int]:
        """Process numbers of those that run."""
        return [w.pid for w in self._watchers if w.pid]

    def stop(self) -> None:
        """End them, whatever they do; ``Units.close`` has to come before."""
        for watcher in self._watchers:
            watcher.stop()
        for watcher in self._watchers:
            watcher.join(timeout=5)


class Watcher(threading.Thread):
    """Starts one worker again and again, and hands it what waits.

    Args:
        number: Of the worker.
        settings, units, say: As for ``Workers``.
    """

    def __init__(self, number: int, settings: Settings, units: Units, say: Say) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self._number, self._settings, self._units, self._say = number, settings, units, say
        self._process: SpawnProcess | None = None
        self._ended = threading.Event()
        self.ready = self.busy = False

    @property
    def pid(self) -> int:
        """Number of the process; 0 for none."""
        return (self._process and self._process.pid) or 0

    def run(self) -> None:
        """Until the service ends."""
        pause = 1.0
        while not self._ended.is_set():
            pipe = self._ready_pipe()
            if pipe is not None:
                pause = 1.0
                self._serve(pipe)
                pipe.close()
            self.ready = self.busy = False
            status = self._end_process()
            if not self._ended.is_set():
                self._say("worker ended", {"worker": self._number, "exit": status})
                if pipe is None:
                    self._ended.wait(pause)
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def stop(self) -> None:
        """End the worker and its thread."""
        self._ended.set()
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    def _ready_pipe(self) -> Connection | None:
        """A worker that is ready."""
        spawning = multiprocessing.get_context("spawn")
        pipe, other = spawning.Pipe()
        limits = self._settings.limits
        alone = self._settings.workers > 1
        self._process = spawning.Process(
            target=work,
            args=(other, self._settings.models, limits.worker_key_bytes, alone),
            name=f"onnx-fhe worker {self._number}",
            daemon=True,
        )
        began = time.monotonic()
        self._process.start()
        other.close()
        with contextlib.suppress(EOFError, OSError):
            if pipe.poll(START_SECONDS):
                pipe.recv()
                self.ready = True
                seconds = round(time.monotonic() - began, 3)
                self._say("worker ready", {"worker": self._number, "pid": self.pid, "seconds": seconds})
                return pipe
        pipe.close()
        return None

    def _serve(self, pipe: Connection) -> None:
        """Hand calls to the worker until it ends."""
        loaded: frozenset[str] = frozenset()
        while (unit := self._units.take(self._number, loaded)) is not None:
            self.busy = True
            unit.attempts += 1
            try:
                pipe.send(Task(unit.model, unit.circuit, unit.keys, unit.path, unit.call))
                if not pipe.poll(self._settings.limits.call_seconds):
                    unit.future.set_exception(too_long(self._settings.limits.call_seconds))
                    return
                answer: Answer = pipe.recv()
            except (EOFError, OSError):
                lost(unit, self._number, self._say, self._units, self._ended)
                return
            loaded = answer.loaded
            self.busy = False
            settle(unit, answer, self._number, self._say)

    def _end_process(self) -> int | None:
        if self._process is None:
            return None
        if self._process.is_alive():
            self._process.join(0.2)
            self._process.kill()
        self._process.join(5)
        status = self._process.exitcode
        self._process = None
        return status
