"""What a run returns, and the steps of an encrypted one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import numpy as np

from .backends.base import Ciphertexts, Circuit, EncryptedSession, Progress
from .backends.reference import OverflowReport
from .clipping import ClipReport
from .ir.runtime import Arrays

Mode = Literal["clear", "simulate", "encrypted"]
MODES: tuple[Mode, ...] = ("clear", "simulate", "encrypted")

CHUNK = 16
"""Samples that are simulated between two reports of progress."""


@dataclass(frozen=True)
class Evaluations:
    """What samples took on ciphertexts.

    Attributes:
        seconds: Of evaluating each sample. The first includes what makes the keys ready, once a session.
        jobs: Samples that were evaluated at the same time, each on one thread; 1: one after the other, each
            with loops on all cores.
        wall: Seconds from encrypting the second sample to decrypting the last; of the first if it is alone.
    """

    seconds: tuple[float, ...]
    jobs: int
    wall: float

    @property
    def latency(self) -> float:
        """Seconds of one sample: the median, without the first where there are others."""
        return median(self.seconds[1:] or self.seconds)

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return (max(1, len(self.seconds) - 1)) / self.wall if self.wall else 0.0


@dataclass(frozen=True)
class Result:
    """What a program computed.

    Attributes:
        mode: ``clear`` (the integer model), ``simulate`` (the circuit with the errors that encryption would
            bring) or ``encrypted``.
        samples: How many samples ran.
        outputs: Arrays by output name, as the original model gives them.
        expected: The same from the integer model in the clear.
        overflows: Values that left the declared range of an accumulator in the integer model, where it clamps
            and a circuit wraps.
        clip: Input values outside the calibrated range, clipped on the client.
        seconds: Seconds of each step, for all samples: ``prologue``; ``prepare`` (the backend is imported and
            the circuit made ready) unless in the clear; ``clear``, ``simulate`` or ``keygen``, ``encrypt``,
            ``evaluate`` and ``decrypt``; ``epilogue``. Keys are made once for each program.
        warnings: What the user should be told.
        evaluations: What each sample took on ciphertexts; None in other modes.
    """

    mode: Mode
    samples: int
    outputs: Arrays
    expected: Arrays
    overflows: OverflowReport
    clip: ClipReport
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    evaluations: Evaluations | None = None

    @property
    def clipped(self) -> int:
        """Number of input values that were clipped to the calibrated range."""
        return self.clip.values


class Stopwatch:
    """Adds up seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Measure the block as (a further part of) ``step``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began


def simulate(circuit: Circuit, values: Mapping[str, np.ndarray], progress: Progress) -> Arrays:
    """``circuit.simulate`` in chunks, with progress."""
    total = len(next(iter(values.values())))
    parts = []
    for start in range(0, total, CHUNK):
        progress("simulate", start, total)
        parts.append(circuit.simulate({k: v[start : start + CHUNK] for k, v in values.items()}))
    progress("simulate", total, total)
    return _joined(parts)


def encrypted(
    session: EncryptedSession,
    values: Mapping[str, np.ndarray],
    timed: Stopwatch,
    progress: Progress,
    jobs: int = 1,
) -> tuple[Arrays, Evaluations]:
    """Encrypt, evaluate and decrypt samples.

    Args:
        session: Client and server, with keys.
        values: Integers by Encrypt output name, samples on axis 0.
        timed: Gets ``encrypt``, ``evaluate`` and ``decrypt``: summed over the samples, so with several jobs
            more than what passes on the clock.
        progress: Called with (what, done, total).
        jobs: Samples that are evaluated at the same time.
    """
    total = len(next(iter(values.values())))
    evaluate = session.evaluate if jobs == 1 else session.evaluate_alone
    parts: list[Arrays] = []
    seconds: list[float] = []
    progress("run encrypted", 0, total)

    def send(index: int) -> Ciphertexts:
        with timed("encrypt"):
            return session.encrypt({k: v[index : index + 1] for k, v in values.items()})

    def work(sent: Ciphertexts) -> tuple[Ciphertexts, float]:
        began = time.perf_counter()
        return evaluate(sent), time.perf_counter() - began

    def receive(received: Ciphertexts, spent: float) -> None:
        seconds.append(spent)
        timed.seconds["evaluate"] = timed.seconds.get("evaluate", 0.0) + spent
        with timed("decrypt"):
            parts.append(session.decrypt(received))
        progress("run encrypted", len(parts), total)

    began = time.perf_counter()
    # The first alone: it makes the keys ready, which no two threads may do at once.
    receive(*work(send(0)))
    if total > 1:
        began = time.perf_counter()
    if jobs == 1:
        for index in range(1, total):
            receive(*work(send(index)))
    else:
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[Future[tuple[Ciphertexts, float]]] = deque()
            for index in range(1, total):
                waiting.append(pool.submit(work, send(index)))
                # A few ahead, so that no thread waits; not all, for ciphertexts are large.
                if len(waiting) > 2 * jobs:
                    receive(*waiting.popleft().result())
            while waiting:
                receive(*waiting.popleft().result())
    return _joined(parts), Evaluations(tuple(seconds), jobs, time.perf_counter() - began)


def warnings(overflows: OverflowReport, clip: ClipReport) -> tuple[str, ...]:
    """What to tell the user about a run."""
    told = []
    if clip.values:
        told.append(
            f"{clip.values} input values in {clip.samples} samples are outside the calibrated range; they "
            "were clipped to it (calibrate on data that covers what comes at run time)"
        )
    if overflows.values:
        told.append(
            f"{overflows.values} values in {overflows.samples} samples overflow at "
            f"{', '.join(overflows.by_node)}: encrypted, these samples may give wrong answers "
            "(compile with a larger --range-margin, or with --range-mode sound)"
        )
    return tuple(told)


def _joined(parts: list[Arrays]) -> Arrays:
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
