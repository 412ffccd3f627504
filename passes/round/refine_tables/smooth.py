"""One-dimensional helpers: a staircase as the curve that it came from, and the nearest monotone curve."""

from __future__ import annotations

import numpy as np


def interpolated(steps: np.ndarray) -> np.ndarray:
    """A curve through the middle of each run of equal entries: about what was rounded to these entries.

    Runs at the ends stay flat but for half the length of their neighbour: a table saturates there.

    Args:
        steps: (size) the entries of a table.
    """
    edges = np.flatnonzero(np.diff(steps)) + 1
    if not len(edges):
        return steps.astype(np.float64)
    starts, ends = np.r_[0, edges], np.r_[edges, len(steps)]
    centres = (starts + ends - 1) / 2
    lengths = ends - starts
    if len(centres) > 1:
        centres[0] = max(centres[0], ends[0] - 1 - (lengths[1] - 1) / 2)
        centres[-1] = min(centres[-1], starts[-1] + (lengths[-2] - 1) / 2)
    return np.interp(np.arange(len(steps)), centres, steps[starts])


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest non-decreasing sequence in weighted least squares (pool adjacent violators).

    Args:
        values: (size).
        weights: (size), positive.
    """
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mass = masses[-2] + masses[-1]
            means[-2] = (means[-2] * masses[-2] + means[-1] * masses[-1]) / mass
            masses[-2] = mass
            counts[-2] += counts[-1]
            del means[-1], masses[-1], counts[-1]
    return np.repeat(means, counts)
