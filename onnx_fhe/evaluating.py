"""Samples on ciphertexts: one after the other on all cores, or several at a time, in one call or in several.

Concrete lets go of Python's lock while it computes, so threads share a set of keys and lose nothing;
processes would each hold keys of their own, and have no more to give.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from .backends.base import EncryptedSession
from .backends.sides import Ciphertexts, Progress
from .ir.batch_runner import Arrays
from .machine.predict import usable_cores
from .running import Evaluations, Jobs, Stopwatch, joined

TRIAL_CALLS = 2
"""For ``auto``: calls that are measured one after the other."""
TRIAL_CALLS_PER_THREAD = 2
"""For ``auto``: calls of each thread that are measured at the same time."""


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
        jobs: Calls that are evaluated at the same time. ``auto`` tries one after the other and one for each
            core on the first samples, and goes on with the faster; with so few samples that none would be
            left to go on with, they come one after the other.
    """
    line = _Line(session, values, timed, progress)
    progress("run encrypted", 0, line.samples)
    # The first alone: it makes the keys ready, which no two threads may do at once.
    wall = line.run([0], 1 if jobs == "auto" else jobs, pool=False)
    rest = range(1, line.calls)
    rates: dict[int, float] = {}
    if jobs == "auto":
        jobs, rates, rest = _choose(line, rest)
    if rest:
        wall = line.run(rest, jobs)
    counted = max(1, len(rest))
    samples = line.samples - (line.calls - counted) * session.batch
    return joined(line.parts), Evaluations(
        tuple(line.seconds), jobs, wall, counted, rates, session.batch, samples
    )


def _choose(line: _Line, rest: range) -> tuple[int, dict[int, float], range]:
    """Measure both ways on the next calls; returns the faster, the rates of both, and the calls left."""
    cores = usable_cores()
    # One call loads the circuit for single threads.
    needed = TRIAL_CALLS + 1 + TRIAL_CALLS_PER_THREAD * cores
    if cores == 1 or len(rest) <= needed:
        return 1, {}, rest
    looped, warm, several = (
        rest[:TRIAL_CALLS],
        rest[TRIAL_CALLS : TRIAL_CALLS + 1],
        rest[TRIAL_CALLS + 1 : needed],
    )
    batch = line.session.batch
    rates = {1: batch * TRIAL_CALLS / max(line.run(looped, 1), 1e-9)}
    line.run(warm, cores, pool=False)
    rates[cores] = batch * TRIAL_CALLS_PER_THREAD * cores / max(line.run(several, cores), 1e-9)
    return max(rates, key=lambda j: rates[j]), rates, rest[needed:]


@dataclass
class _Line:
    """Samples in their order, as many in each call as the session takes."""

    session: EncryptedSession
    values: Mapping[str, np.ndarray]
    timed: Stopwatch
    progress: Progress
    parts: list[Arrays] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = len(next(iter(self.values.values())))
        self.calls = -(-self.samples // self.session.batch)

    def run(self, indices: Sequence[int], jobs: int, *, pool: bool = True) -> float:
        """Evaluate some calls, in order; returns the seconds that passed. Without ``pool`` in this thread."""
        began = time.perf_counter()
        if jobs == 1 or not pool:
            for index in indices:
                self._receive(*self._work(self._send(index), jobs))
            return time.perf_counter() - began
        with ThreadPoolExecutor(jobs) as threads:
            waiting: deque[Future[tuple[Ciphertexts, float]]] = deque()
            for index in indices:
                waiting.append(threads.submit(self._work, self._send(index), jobs))
                # A few ahead, so that no thread waits; not all, for ciphertexts are large.
                if len(waiting) > 2 * jobs:
                    self._receive(*waiting.popleft().result())
            while waiting:
                self._receive(*waiting.popleft().result())
        return time.perf_counter() - began

    def _send(self, index: int) -> Ciphertexts:
        batch = self.session.batch
        # The last call is filled up with its last sample.
        chosen = np.minimum(np.arange(index * batch, (index + 1) * batch), self.samples - 1)
        with self.timed("encrypt"):
            return self.session.encrypt({k: v[chosen] for k, v in self.values.items()})

    def _work(self, sent: Ciphertexts, jobs: int) -> tuple[Ciphertexts, float]:
        evaluate = self.session.evaluate if jobs == 1 else self.session.evaluate_alone
        began = time.perf_counter()
        return evaluate(sent), time.perf_counter() - began

    def _receive(self, received: Ciphertexts, spent: float) -> None:
        self.seconds.append(spent)
        self.timed.seconds["evaluate"] = self.timed.seconds.get("evaluate", 0.0) + spent
        with self.timed("decrypt"):
            found = self.session.decrypt(received)
        done = len(self.parts) * self.session.batch
        self.parts.append({k: v[: self.samples - done] for k, v in found.items()})
        self.progress("run encrypted", min(done + self.session.batch, self.samples), self.samples)
