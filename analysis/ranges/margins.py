"""Margins of declared ranges: how much farther than what was seen an accumulator may come."""

from __future__ import annotations

import numpy as np

from ...ir.interval_arithmetic import Interval
from .tails import MIN_SAMPLES, Extremes, Tails

TARGET_OVERFLOW_RATE = 1 / 2000
"""Share of the samples in which any accumulator of a circuit may be expected to leave its range: half of one
in a thousand, for an estimate from a few hundred samples is good to within a factor of two or so."""
OVERFLOW_ERROR_WEIGHT = 16.0
"""A value that wraps around counts so many times its squared error: it is wrong without a warning."""
MIN_MARGIN_SHARE = 0.1
"""Smallest margin, as a share of the width of a range: new data is never quite like the old."""
MAX_MARGIN_SHARE = 1.0
"""Largest margin, as a share of the width: past it a table would have no resolution left."""
COMPARED_MARGINS = 64
"""How many margins are compared, from none to the largest."""
SAME_MARGIN = 1e-9
"""Share by which margins may differ and still be the same."""


def widened(
    seen: Extremes, margin: float | str, target: float, cells: int | None = None, whole: bool = True
) -> Interval:
    """Observed bounds of each channel with a margin.

    Args:
        seen: What each sample has.
        margin: Share of the width for each side (0: no margin at all); ``auto``: what the tails say.
        target: Share of the samples that may leave the bounds of this tensor, for ``auto``.
        cells: Entries of the table that the range is cut into, for ``auto``: they become coarser with it, so
            that a margin ends where it loses more by that than it saves. None where a margin costs nothing.
        whole: The values are integers: a margin is one too, and at least 1.
    """
    low, high = seen.range
    width = high - low
    if not isinstance(margin, str):
        above = below = width * margin
    elif len(seen.low) < MIN_SAMPLES:
        above = below = MAX_MARGIN_SHARE * _scale(low, high)
    else:
        tails = Tails.of(seen)
        found = tails.margins(target)
        if cells is not None:
            found = _balanced(tails, cells, np.maximum(found, 0.0))
        found = np.clip(found, MIN_MARGIN_SHARE * tails.width, MAX_MARGIN_SHARE * tails.width)
        above, below = (m.reshape(low.shape) for m in np.split(found, 2))
    if whole and margin:
        # The same values, shifted, have the same margins: not one more by the last bit of a float.
        above, below = (np.maximum(np.ceil(m * (1 - SAME_MARGIN)), 1.0) for m in (above, below))
    return low - below, high + above


def _balanced(tails: Tails, cells: int, most: np.ndarray) -> np.ndarray:
    """Margins (ends), none past ``most``, at which cells and overflow together make the least squared error.

    Both as shares of the squared width: a cell is wrong by a twelfth of its own square, and a value that
    leaves the range by about the whole width.
    """
    tried = np.linspace(0.0, 1.0, COMPARED_MARGINS)[:, None] * most
    coarse = (1 + 2 * tried / np.maximum(tails.width, 1e-9)) ** 2 / (12 * cells**2)
    best = np.argmin(coarse + OVERFLOW_ERROR_WEIGHT * tails.rates(tried), axis=0)
    return np.asarray(np.take_along_axis(tried, best[None], axis=0)[0])


def _scale(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What few samples say about the width of channels; a single one only says how much channels differ."""
    width = high - low
    whole = width.mean() if width.any() else high.max() - low.min()
    return np.asarray(np.maximum(width, whole))
