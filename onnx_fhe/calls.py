"""Many calls of a circuit: one after the other on all cores, or several at a time.

Concrete lets go of Python's lock while it computes, so threads share a set of keys and lose nothing: two
processes of a core each did no more samples a second than two threads (``docs/cost.md``), and each would hold
keys of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .cores import usable_cores
from .evaluations import Evaluations, Jobs

TRIAL_CALLS = 2
"""For ``auto``: calls that are measured one after the other."""
TRIAL_CALLS_PER_THREAD = 2
"""For ``auto``: calls of each thread that are measured at the same time."""

Sent = TypeVar("Sent")
Got = TypeVar("Got")


@dataclass
class Calls(Generic[Sent, Got]):
    """Calls, which are evaluated in their order.

    Attributes:
        samples: Of all calls; the last call may be filled up.
        batch: Samples of one call.
        send: Makes what the call of this number takes; runs on the thread that waits for the results.
        evaluate: Evaluates one call: with loops on all cores, or (True) on the calling thread alone.
        receive: Takes the result of the next call and the seconds of evaluating it; runs on the thread that
            waits, in the order of the calls.
        seconds: What each call took, as far as they are done.
    """

    samples: int
    batch: int
    send: Callable[[int], Sent]
    evaluate: Callable[[Sent, bool], Got]
    receive: Callable[[Got, float], None]
    seconds: list[float] = field(default_factory=list)

    def run(self, jobs: Jobs = 1) -> Evaluations:
        """Evaluate all calls.

        Args:
            jobs: Calls that are evaluated at the same time, each on one thread; with 1 they come one after
                the other, each with loops on all cores. ``auto`` tries both on the first calls, and goes on
                with the faster; with so few calls that none would be left to go on with, they come one after
                the other.
        """
        # The first alone: it makes the keys ready, which no two threads may do at once.
        wall = self._some([0], 1 if jobs == "auto" else jobs, pool=False)
        calls = -(-self.samples // self.batch)
        rest = range(1, calls)
        rates: dict[int, float] = {}
        if jobs == "auto":
            jobs, rates, rest = self._choose(rest)
        if rest:
            wall = self._some(rest, jobs)
        counted = max(1, len(rest))
        samples = self.samples - (calls - counted) * self.batch
        return Evaluations(tuple(self.seconds), jobs, wall, counted, rates, self.batch, samples)

    def _choose(self, rest: range) -> tuple[int, dict[int, float], range]:
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
        rates = {1: self.batch * TRIAL_CALLS / max(self._some(looped, 1), 1e-9)}
        self._some(warm, cores, pool=False)
        spent = max(self._some(several, cores), 1e-9)
        rates[cores] = self.batch * TRIAL_CALLS_PER_THREAD * cores / spent
        return max(rates, key=lambda j: rates[j]), rates, rest[needed:]

    def _some(self, numbers: Sequence[int], jobs: int, *, pool: bool = True) -> float:
        """Evaluate some calls, in order; returns the seconds that passed. Without ``pool`` in this thread."""
        began = time.perf_counter()
        if jobs == 1 or not pool:
            for number in numbers:
                self._done(*self._timed(self.send(number), jobs > 1))
            return time.perf_counter() - began
        with ThreadPoolExecutor(jobs) as threads:
            waiting: deque[Future[tuple[Got, float]]] = deque()
            try:
                for number in numbers:
                    waiting.append(threads.submit(self._timed, self.send(number), True))
                    # A few ahead, so that no thread waits; not all, for ciphertexts are large.
                    if len(waiting) > 2 * jobs:
                        self._done(*waiting.popleft().result())
                while waiting:
                    self._done(*waiting.popleft().result())
            finally:
                for left in waiting:
                    left.cancel()
        return time.perf_counter() - began

    def _timed(self, sent: Sent, alone: bool) -> tuple[Got, float]:
        began = time.perf_counter()
        return self.evaluate(sent, alone), time.perf_counter() - began

    def _done(self, received: Got, spent: float) -> None:
        self.seconds.append(spent)
        self.receive(received, spent)
