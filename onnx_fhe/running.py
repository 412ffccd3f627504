"""What a run returns, how its steps are timed, and simulation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .clipping import ClipReport
from .evaluations import Evaluations
from .ir.batch_runner import Arrays

if TYPE_CHECKING:
    from .backends.base import Circuit
    from .backends.reference import OverflowReport
    from .backends.sides import Progress

Mode = Literal["clear", "simulate", "encrypted"]
MODES: tuple[Mode, ...] = ("clear", "simulate", "encrypted")

CHUNK_SAMPLES = 16
"""Samples that are simulated between two reports of progress."""


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
    for start in range(0, total, CHUNK_SAMPLES):
        progress("simulate", start, total)
        parts.append(circuit.simulate({k: v[start : start + CHUNK_SAMPLES] for k, v in values.items()}))
    progress("simulate", total, total)
    return joined(parts)


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


def joined(parts: list[Arrays]) -> Arrays:
    """Outputs of samples, put together."""
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
