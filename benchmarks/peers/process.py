"""The asker's end of a worker process (``workers/serving.py``)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from typing_extensions import Self


class WorkerError(Exception):
    """A request that could not be answered: refused, too slow, or the process died."""


class WorkerProcess:
    """A worker that runs on some cores.

    Args:
        command: Starts it.
        cores: Processor cores that it may use: as threads, and by affinity where ``pinned``.
        nice: Added to its niceness.
        pinned: Hold it to the first so many cores: all sides then compute on the very same ones.

    Raises:
        WorkerError: It cannot be started.
    """

    def __init__(
        self, command: Sequence[str | Path], *, cores: int = 1, nice: int = 0, pinned: bool = False
    ) -> None:
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - close() does
        environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "PYTHONUNBUFFERED": "1"}
        try:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment,
                text=True,
            )
        except OSError as error:
            raise WorkerError(f"{command[0]} does not start: {error}") from error
        # Threads inherit both; none has been started yet that computes.
        if nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
        if pinned and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:cores])

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Ask, and wait for the answer.

        Args:
            do: Name of the request.
            timeout: Seconds after which the process is ended.
            arguments: Of the request.

        Raises:
            WorkerError: The worker says why not, took too long, or died; after the last two it is gone.
        """
        stdin, stdout = self._pipes()
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, end) if timeout else None
        if timer:
            timer.start()
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            if timer:
                timer.cancel()
        if late.is_set():
            raise WorkerError(f"{do} took more than {timeout:.0f} s")
        if not line:
            raise WorkerError(f"the process died at {do}: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["ok"]

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for pipe in (*self._pipes(), self._said):
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin
        assert self._process.stdout
        return self._process.stdin, self._process.stdout

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"
