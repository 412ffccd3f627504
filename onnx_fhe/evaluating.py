"""Samples on ciphertexts, with both sides in this process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .backends.base import EncryptedSession
from .backends.sides import Ciphertexts, Progress
from .calls import Calls
from .ir.batch_runner import Arrays
from .running import Evaluations, Jobs, Stopwatch, joined


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
