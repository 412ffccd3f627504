"""Where trials run: in this process, in several, or on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..cluster import connect
from ..ir.errors import UserError
from .clock import OutOfTimeError, bounded, wait_for
from .trying import Candidate, Outcome, Task, Tester

Answer = TypeVar("Answer")


class Workers(ABC):
    """Runs trials.

    Attributes:
        size: How many run at once.
    """

    size: int = 1

    @abstractmethod
    def submit(self, number: int, candidate: Candidate) -> None:
        """Start a trial."""

    @abstractmethod
    def finished(self, seconds: float = float("inf")) -> tuple[int, Outcome] | None:
        """Wait for any trial to end, and return its number and what came of it.

        Args:
            seconds: To wait at most.

        Returns:
            None where none ended in that time; what runs should be stopped then.

        Raises:
            UserError: A worker was lost.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the trials that run; new ones may be started."""

    @abstractmethod
    def close(self) -> None:
        """End it, whatever runs."""


class Inline(Workers):
    """One trial after the other, in this process."""

    def __init__(self, tester: Tester) -> None:
        self._tester = tester
        self._waiting: deque[tuple[int, Candidate]] = deque()

    def submit(self, number: int, candidate: Candidate) -> None:
        """Start a trial (when it is waited for)."""
        self._waiting.append((number, candidate))

    def finished(self, seconds: float = float("inf")) -> tuple[int, Outcome] | None:
        """Run the next trial, and return its number and what came of it."""
        number, candidate = self._waiting.popleft()
        try:
            with bounded(seconds):
                return number, self._tester.try_out(candidate)
        except OutOfTimeError:
            return None

    def stop(self) -> None:
        """Forget what waits; what ran has ended."""
        self._waiting.clear()

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


class Processes(Workers):
    """Trials in processes of this machine.

    Args:
        task: What a trial needs to know.
        size: How many processes.
        folder: Where they leave for each other what took long to make.
    """

    def __init__(self, task: Task, size: int, folder: Path | None = None) -> None:
        self.size = size
        self._own = tempfile.TemporaryDirectory(prefix="onnx-fhe-")
        self._folder = folder
        # In a file: what does not fit a pipe would be written while the new process is still importing.
        self._task = Path(self._own.name) / "task"
        self._task.write_bytes(pickle.dumps(task))
        self._threads = _one_thread()
        self._threads.__enter__()
        self._pool = self._begun()
        self._running: dict[Future[Outcome], int] = {}

    def _begun(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.size,
            # Not fork: this process may have threads, of onnxruntime and others.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._task, os.getpid(), self._folder),
        )

    def submit(self, number: int, candidate: Candidate) -> None:
        """Start a trial."""
        self._running[self._pool.submit(_try_here, candidate)] = number

    def finished(self, seconds: float = float("inf")) -> tuple[int, Outcome] | None:
        """Wait for any trial to end; see ``Workers.finished``."""
        done = wait_for(list(self._running), seconds, FIRST_COMPLETED)
        if not done:
            return None
        future = min(done, key=lambda f: self._running[f])
        number = self._running.pop(future)
        try:
            return number, future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that ran trials ended before its time",
                found="it crashed, was killed, or found no memory",
                do="take fewer --jobs; the same command goes on where this one ended. (A Python script that"
                " calls tune with jobs needs `if __name__ == '__main__':` around it.)",
            ) from error

    def call(self, function: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
        """Start something else than a trial."""
        return self._pool.submit(function, *arguments)

    def stop(self) -> None:
        """End the processes, whatever they do; others begin where there is more to do."""
        self._end()
        self._pool = self._begun()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._end()
        self._own.cleanup()
        self._threads.__exit__(None, None, None)

    def _end(self) -> None:
        self._running.clear()
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


class Dask(Workers):
    """Trials on the workers of a Dask cluster, which need onnx-fhe and get model and data by value.

    Args:
        task: What a trial needs to know.
        address: Address of the scheduler.

    Raises:
        UserError: There is no cluster, it has no workers, or they lack onnx-fhe.
    """

    def __init__(self, task: Task, address: str) -> None:
        self._client = connect(address, "tune")
        # A trial takes a whole worker: what it runs has threads of its own.
        self.size = max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))
        content = pickle.dumps(task)
        self._key = str(hash(content))
        self._task = self._client.scatter(content, broadcast=True, hash=False)
        self._running: dict[Any, tuple[int, Candidate]] = {}
        self._done: SimpleQueue[Any] = SimpleQueue()

    def submit(self, number: int, candidate: Candidate) -> None:
        """Start a trial."""
        future: Any = self._client.submit(_try_there, self._key, self._task, candidate, pure=False)
        self._running[future] = number, candidate
        future.add_done_callback(self._done.put)

    def finished(self, seconds: float = float("inf")) -> tuple[int, Outcome] | None:
        """Wait for any trial to end; see ``Workers.finished``."""
        future: Any = None
        # What was stopped comes here too.
        while future not in self._running:
            try:
                future = self._done.get(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            except Empty:
                return None
        number, candidate = self._running.pop(future)
        try:
            return number, future.result()
        except Exception as error:  # noqa: BLE001 - a lost worker costs the trial that it ran, not the search
            return number, candidate.failed(f"lost on the cluster: {error}", True)

    def stop(self) -> None:
        """Cancel what waits; a trial that runs on a worker ends there, and nobody asks for it."""
        self._client.cancel(list(self._running), force=True)
        self._running.clear()

    def close(self) -> None:
        """Cancel what runs, and leave the cluster."""
        self.stop()
        self._client.close()


_here: Tester | None = None
_there: dict[str, Tester] = {}
_lock = threading.Lock()


def _begin(task: Path, parent: int, folder: Path | None) -> None:
    """In a new process: get ready, and end with the process that started it, however that ends."""
    import signal

    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _here = Tester(pickle.loads(task.read_bytes()), folder)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _try_here(candidate: Candidate) -> Outcome:
    assert _here is not None
    return _here.try_out(candidate)


def _try_there(key: str, task: bytes, candidate: Candidate) -> Outcome:
    # Random states and threads are the process's: one trial at a time.
    with _lock:
        if key not in _there:
            _there.clear()
            _there[key] = Tester(pickle.loads(task))
        return _there[key].try_out(candidate)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started inside use one thread each for linear algebra: there are several of them."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {n: os.environ.get(n) for n in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
