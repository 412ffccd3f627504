"""Optimal Brain Surgeon, row by row: remove a weight, and let the weights that stay make up for it.

The error is (w' - w) H (w' - w)^T with H the second moment of the layer's inputs, so each row is a problem of
its own (Hassibi and Stork, 1993; by rows of a layer: Frantar and Alistarh, 2022, arXiv 2208.11580).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...quantize.weights import damped

REMOVAL_DIVISOR = 32
"""One of so many weights that a row still has is removed at once, at least one."""
DAMPING = 1e-3
"""Share of the mean diagonal that is added to the diagonal of H."""


def importance(weights: np.ndarray, moments: list[np.ndarray]) -> np.ndarray:
    """What removing each weight alone adds to the error, as a share of the layer's output energy: (out, in).

    Args:
        weights: (out, in).
        moments: (in, in) for each group of output channels.
    """
    blocks, energy = [], 0.0
    for block, moment in zip(np.array_split(weights, len(moments)), moments, strict=True):
        h = damped(moment, DAMPING)
        blocks.append(block**2 / np.diag(np.linalg.inv(h)))
        energy += float(np.einsum("oi,ij,oj->", block, h, block))
    return np.asarray(np.concatenate(blocks) / max(energy, 1e-30))


def prune_rows(
    weights: np.ndarray,
    moments: list[np.ndarray],
    counts: np.ndarray,
    fits: Callable[[np.ndarray], bool],
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Remove weights from each row until few enough are left.

    Args:
        weights: (out, in); zeros stay zero.
        moments: (in, in) for each group of rows.
        counts: (out) most non-zero weights of each row.
        fits: Whether a row's weights are within the limit on its accumulator; removal goes on until then.
        progress: Called with (rows done, rows).
    """
    result = weights.copy()
    rows = np.array_split(np.arange(len(weights)), len(moments))
    for group, moment in zip(rows, moments, strict=True):
        h = damped(moment, DAMPING)
        whole = np.linalg.inv(h)
        for row in group:
            result[row] = _prune_row(weights[row], h, whole, int(counts[row]), fits)
            progress(int(row) + 1, len(weights))
    return result


def _prune_row(
    weights: np.ndarray, h: np.ndarray, whole: np.ndarray, count: int, fits: Callable[[np.ndarray], bool]
) -> np.ndarray:
    left = np.flatnonzero(weights)
    inverse = whole if len(left) == len(weights) else np.linalg.inv(h[np.ix_(left, left)])
    values = weights[left]
    while len(left):
        excess = len(left) - count
        if excess <= 0 and fits(values):
            row = _solve(weights, h, left)
            if fits(row):
                return row
        # In proportion to what is left: the more weights, the less one of them matters.
        at_once = max(1, len(left) // REMOVAL_DIVISOR)
        at_once = min(at_once, excess) if excess > 0 else at_once
        chosen = np.argsort(values**2 / np.diag(inverse), kind="stable")[:at_once]
        stay = np.setdiff1d(np.arange(len(left)), chosen)
        across = np.linalg.solve(inverse[np.ix_(chosen, chosen)], inverse[np.ix_(chosen, stay)])
        values = values[stay] - values[chosen] @ across
        inverse = inverse[np.ix_(stay, stay)] - inverse[np.ix_(stay, chosen)] @ across
        left = left[stay]
    return np.zeros_like(weights)


def _solve(weights: np.ndarray, h: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The best row that has weights at ``left`` only; equal to ``weights`` where nothing was removed."""
    row = np.zeros_like(weights)
    if len(left) == np.count_nonzero(weights):
        row[left] = weights[left]
    elif len(left):
        row[left] = np.linalg.solve(h[np.ix_(left, left)], h[left] @ weights)
    return row
