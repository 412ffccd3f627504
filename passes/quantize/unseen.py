"""What clipping loses on values that lie beyond all that calibration data showed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_ROWS = 16
"""Rows from which on there is a tail to look at."""
TAIL_DIVISOR = 25
"""The tail is one of so many equal parts of the values: the largest."""


@dataclass(frozen=True)
class Unseen:
    """The expected squared error of clipping new values, from the tails of the observed ones.

    A new value exceeds the largest of n with probability 1 / (n + 1), and what it exceeds it by is taken for
    exponential (Coles, An Introduction to Statistical Modeling of Extreme Values, chapter 4). Values that end
    at a bound, or that are only a few different ones, meet the largest more than once, and lose nothing.

    Attributes:
        low, high: Smallest and largest observed value (columns).
        below, above: Mean excess of the tails at either end (columns); 0 where there is none.
        rows: Number of observed values.
    """

    low: np.ndarray
    high: np.ndarray
    below: np.ndarray
    above: np.ndarray
    rows: int

    @classmethod
    def of(cls, values: np.ndarray, sample: np.ndarray) -> Unseen:
        """Those of ``values`` (rows, columns), of which some rows are a ``sample``."""
        low, high = (a.astype(np.float64) for a in (values.min(axis=0), values.max(axis=0)))
        rows = len(sample)
        if rows < MIN_ROWS:
            nothing = np.zeros_like(low)
            return cls(low, high, nothing, nothing, len(values))
        count = max(3, rows // TAIL_DIVISOR)
        ordered = np.partition(sample.astype(np.float64), (count, rows - 1 - count), axis=0)
        above = ordered[-count:].mean(axis=0) - ordered[-1 - count]
        below = ordered[count] - ordered[:count].mean(axis=0)
        above, below = (
            np.where((values == high).sum(axis=0) > 1, 0.0, above),
            np.where((values == low).sum(axis=0) > 1, 0.0, below),
        )
        return cls(low, high, below, above, len(values))

    def loss(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Mean squared error that a range [low, high] adds to what observed values lose (columns)."""
        total = _loss(high - self.high, self.above) + _loss(self.low - low, self.below)
        return np.asarray(total / (self.rows + 1))


def _loss(room: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """E[max(0, x - room)^2] of an exponential x; negative room is what every such value loses besides."""
    kept = np.exp(-np.maximum(room, 0.0) / np.maximum(mean, 1e-300))
    short = np.maximum(-room, 0.0)
    return np.where(mean > 0, 2 * mean**2 * kept + 2 * mean * short + short**2, 0.0)
