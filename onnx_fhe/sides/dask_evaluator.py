"""Evaluation on a Dask cluster, whose machines get ciphertexts, evaluation keys and the server half."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from ..backends.sides import Progress, quiet
from ..cluster import connect
from ..evaluations import Evaluations
from ..ir.errors import OnnxFheError, UserError
from .ciphertexts import Call, Ciphertexts, EncryptedResults
from .dask_broadcast import Broadcast
from .dask_worker import evaluate_call
from .keys import EvaluationKeys
from .server import Server

AHEAD = 3
"""Calls for each thread of the workers that are on their way: enough that none waits, and no more."""
MAX_TRIES_PER_CALL = 4
"""Times that a call is handed to the cluster; Dask tries each on several workers, if those are lost."""
LOOK_SECONDS = 5
"""Between two looks at whether the cluster still has workers."""
ALONE_SECONDS = 120
"""Without any worker, until it is given up."""


class DaskEvaluator:
    """A server whose calls are computed on the workers of a Dask cluster, each call on one core.

    The half and each user's evaluation keys are sent to the workers once. No secret key comes here.

    Args:
        address: Address of the scheduler.
        half: Content of the server's half.

    Attributes:
        evaluations: What the calls of the last ``evaluate`` took.

    Raises:
        ArtifactError: The half is damaged.
        MissingPackageError: Dask is not installed.
        UserError: There is no cluster, it has no workers, or they lack onnx-fhe.
    """

    def __init__(self, address: str, half: bytes) -> None:
        self._server = Server.load(half)
        self._address = address
        self._client = connect(address, "server")
        self._half = half
        self._shared = Broadcast(self._client)
        self.evaluations: Evaluations | None = None

    @property
    def threads(self) -> int:
        """Calls that the workers evaluate at the same time."""
        counts: dict[str, int] = self._client.nthreads()
        return max(1, sum(counts.values()))

    def evaluate(
        self, ciphertexts: Ciphertexts, keys: EvaluationKeys, progress: Progress = quiet
    ) -> EncryptedResults:
        """Compute on ciphertexts; several threads may do so at the same time.

        A call whose worker is lost is evaluated on another one.

        Args:
            ciphertexts: What a client encrypted for this circuit.
            keys: That client's evaluation keys.
            progress: Called with (what, done, total), in the order of the samples.

        Raises:
            DataError: The ciphertexts or the keys are of another circuit, or damaged.
            UserError: The cluster has no workers left, or loses all that try a call.
        """
        header = ciphertexts.header
        self._server.check(header, keys)
        began, threads = time.perf_counter(), self.threads
        done: list[Call] = []
        seconds: list[float] = []
        progress("evaluate", 0, header.samples)
        for result, spent in self._results(ciphertexts, keys, AHEAD * threads):
            done.append(result)
            seconds.append(spent)
            progress("evaluate", min(len(done) * header.batch, header.samples), header.samples)
        self.evaluations = Evaluations(
            tuple(seconds),
            threads,
            time.perf_counter() - began,
            len(done),
            batch=header.batch,
            samples=header.samples,
        )
        return EncryptedResults.of(header, done)

    def close(self) -> None:
        """Leave the cluster; what was sent to its workers goes."""
        self._shared.clear()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _results(
        self, ciphertexts: Ciphertexts, keys: EvaluationKeys, ahead: int
    ) -> Iterator[tuple[Call, float]]:
        """Results in their order, with the seconds of each."""
        waiting: deque[_Asked] = deque()
        try:
            for call in ciphertexts.calls:
                asked = _Asked(call, keys, ciphertexts.header.batch)
                self._send(asked)
                waiting.append(asked)
                if len(waiting) > ahead:
                    yield self._receive(waiting[0])
                    waiting.popleft()
            while waiting:
                yield self._receive(waiting[0])
                waiting.popleft()
        finally:
            self._client.cancel([a.future for a in waiting], force=True)

    def _send(self, asked: _Asked) -> None:
        asked.future = self._client.submit(
            evaluate_call,
            self._server.header.circuit(asked.batch).id,
            self._shared.half("half", self._half),
            asked.keys.id,
            self._shared.keys(asked.keys.id, lambda: asked.keys.content),
            asked.batch,
            dict(asked.call),
            pure=False,
        )
        asked.tries += 1

    def _receive(self, asked: _Asked) -> tuple[Call, float]:
        while True:
            try:
                found: tuple[Call, float] = self._wait(asked)
                return found
            except OnnxFheError:
                raise
            except Exception as error:
                # A worker was lost, and with it perhaps the only copy of what it was sent.
                if asked.tries >= MAX_TRIES_PER_CALL:
                    raise UserError(
                        "a call was lost on every worker of the Dask cluster that tried it",
                        found=f"{type(error).__name__}: {error}",
                        do="look at the logs of the workers: they may lack memory for the keys in use",
                    ) from error
                self._send(asked)

    def _wait(self, asked: _Asked) -> Any:
        """The result of a call, while there are workers."""
        seen = time.monotonic()
        while True:
            try:
                return asked.future.result(timeout=LOOK_SECONDS)
            except (TimeoutError, asyncio.TimeoutError):
                pass
            if self._client.nthreads():
                seen = time.monotonic()
            elif time.monotonic() - seen > ALONE_SECONDS:
                raise UserError(
                    "the Dask cluster has no workers left",
                    found=f"none at {self._address} for {ALONE_SECONDS} s",
                    do="start some with `dask worker ADDRESS`, and evaluate again",
                )


@dataclass
class _Asked:
    """A call that is on its way."""

    call: Call
    keys: EvaluationKeys
    batch: int
    future: Any = None
    tries: int = 0
