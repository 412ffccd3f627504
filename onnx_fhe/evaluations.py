"""What calls of a circuit took on ciphertexts."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Jobs = int | Literal["auto"]
"""Samples that are evaluated at the same time; ``auto`` measures what is best."""


@dataclass(frozen=True)
class Evaluations:
    """What calls of the circuit took on ciphertexts.

    Attributes:
        seconds: Time of evaluating each call. The first includes what makes the keys ready, once a session.
        jobs: Calls that were evaluated at the same time, each on one thread; 1: one after the other, each
            with loops on all cores. Where that was to be found out: what was found best.
        wall: Seconds from encrypting the first of the calls that count to decrypting the last.
        counted: Calls that count, the last ones: all but the first, if it is not alone, and but those that
            ran while that was found out.
        rates: What was measured for that: samples a second by jobs.
        batch: Samples of each call.
        samples: How many the calls that count hold; the last call may be filled up.
    """

    seconds: tuple[float, ...]
    jobs: int
    wall: float
    counted: int
    rates: dict[int, float] = field(default_factory=dict)
    batch: int = 1
    samples: int = 0

    @property
    def latency(self) -> float:
        """Seconds until a sample is done, with all others of its call: the median of those that count."""
        return median(self.seconds[-self.counted :])

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return (self.samples or self.counted) / self.wall if self.wall else 0.0
