"""Samples on ciphertexts, with both sides in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .backends.base import EncryptedSession
from .backends.sides import Ciphertexts, Progress
from .calls import Calls
from .evaluations import Evaluations, Jobs
from .ir.batch_runner import Arrays
from .running import Stopwatch, joined
from .splittable import Splittable

if TYPE_CHECKING:
    from .sides.cluster_runs import ClusterRuns


def encrypted(
    session: EncryptedSession,
    values: Mapping[str, np.ndarray],
    timed: Stopwatch,
    progress: Progress,
    jobs: Jobs = 1,
) -> tuple[Arrays, Evaluations]:
    """Encrypt, evaluate and decrypt samples.

    Args:
        session: Client and server, with keys; it says how many samples a call takes.
        values: Integers by Encrypt output name, samples on axis 0.
        timed: Gets ``encrypt``, ``evaluate`` and ``decrypt``: summed over the samples, so with several jobs
            more than what passes on the clock.
        progress: Called with (what, done, total).
        jobs: As those of ``Calls.run``.
    """
    batch, samples = session.batch, len(next(iter(values.values())))
    parts: list[Arrays] = []

    def send(number: int) -> Ciphertexts:
        # The last call is filled up with its last sample.
        chosen = np.minimum(np.arange(number * batch, (number + 1) * batch), samples - 1)
        with timed("encrypt"):
            return session.encrypt({k: v[chosen] for k, v in values.items()})

    def evaluate(sent: Ciphertexts, alone: bool) -> Ciphertexts:
        return session.evaluate_alone(sent) if alone else session.evaluate(sent)

    def receive(received: Ciphertexts, spent: float) -> None:
        timed.seconds["evaluate"] = timed.seconds.get("evaluate", 0.0) + spent
        with timed("decrypt"):
            found = session.decrypt(received)
        done = len(parts) * batch
        parts.append({k: v[: samples - done] for k, v in found.items()})
        progress("run encrypted", min(done + batch, samples), samples)

    progress("run encrypted", 0, samples)
    evaluations = Calls(samples, batch, send, evaluate, receive).run(jobs)
    return joined(parts), evaluations


class EncryptedRuns:
    """Encrypted runs of a program; keys are made once, for each number of samples a call.

    Args:
        program: The program.

    Attributes:
        session: The keys in use, with client and server; None before there are any.
    """

    def __init__(self, program: Splittable) -> None:
        self._program = program
        self.session: EncryptedSession | None = None
        self._sides: ClusterRuns | None = None

    def run(
        self,
        values: Arrays,
        timed: Stopwatch,
        progress: Progress,
        jobs: Jobs = 1,
        batch: int = 1,
        dask: str | None = None,
    ) -> tuple[Arrays, Evaluations]:
        """Encrypt, evaluate and decrypt; ``batch`` and ``dask`` as for ``Program.run``."""
        if dask is not None:
            if self._sides is None:
                from .sides.cluster_runs import ClusterRuns
                from .sides.split import split

                with timed("prepare"):
                    self._sides = ClusterRuns(*split(self._program))
            return self._sides.run(values, timed, progress, batch, dask)
        known = self.session if self.session is not None and self.session.batch == batch else None
        fresh = known is None
        circuits = self._program.circuits
        with timed("prepare"):
            kept = circuits.get(batch)
            session = known or (circuits[1].session(batch) if kept is None else kept.session())
        with timed("keygen"):
            if fresh:
                progress("make keys", 0, 1)
                session.keygen()
                progress("make keys", 1, 1)
                self.session = session
        return encrypted(session, values, timed, progress, jobs)
