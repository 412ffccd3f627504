"""Cells of calibration data that lie far from all others of their feature: markers and mistakes, not values.

One cell in a thousand (-9999 for "missing", a stray million) would stretch the range of its feature until
nothing of the rest is told apart, and weigh in every fit. Such cells are taken for the nearest of the other
values once, before the first pass, as the client clips them when the circuit is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

MIN_SAMPLES = 8
"""Samples below which no value is called unusual."""
MAX_OUTLIER_SHARE = 0.01
"""Share of the samples that may lie apart, where they have several values (two samples in any case)."""
MAX_REPEATED_OUTLIER_SHARE = 0.05
"""Share of the samples that may lie apart, where all have one value."""
MIN_GAP = 4.0
"""How wide the gap must be between the other values and what lies apart, in ranges of the others."""
COMPACT_DEVIATIONS = 8.0
"""``MIN_GAP`` holds for values whose range is at most so many standard deviations. For wider ranges the gap
grows with the cube of their ratio: heavy tails have gaps of their own."""
MIN_OTHER_VALUES = 20
"""Where one value makes up most of a feature, so many other values show how far it reaches."""
MIN_GAP_OF_FEW_VALUES = 500.0
"""The gap, in ranges of the others, where there are fewer of them than ``MIN_OTHER_VALUES``."""
SIMILAR_RANGE_RATIO = 10.0
"""Features whose range is at most so many times the usual one show together what a usual value is."""
USUAL_LEVELS = 64
"""How many values of a feature are told apart as a rule."""
MAX_NAMED_CELLS = 3
"""Cells that a note names, for each input."""


@dataclass(frozen=True)
class Outliers:
    """Cells that lie apart.

    Attributes:
        array: The data with each of them replaced by the nearest of the other values.
        cells: (sample, index in the sample, value, what it is taken for) of each.
    """

    array: np.ndarray
    cells: list[tuple[int, tuple[int, ...], float, float]]


def clipped(
    data: Mapping[str, np.ndarray], model: ir.Model, notes: list[str] | None = None
) -> Mapping[str, np.ndarray]:
    """Calibration data without its outliers; ``data`` itself where there are none.

    Args:
        data: Arrays by input name, samples on axis 0.
        model: Says how its inputs are read.
        notes: Are told which cells, and what for.
    """
    found = {}
    images = any(n.op_type == "Conv" for n in model.graph)
    for name, array in data.items():
        if array.dtype.kind != "f" or array.ndim < 2:
            continue
        axis = 1 if array.ndim == 2 or images else array.ndim - 1
        apart = find(array, axis)
        if not apart.cells:
            continue
        found[name] = apart.array
        if notes is not None:
            notes.extend(n for n in _told(name, apart) if n not in notes)
    return {**data, **found} if found else data


def find(array: np.ndarray, axis: int) -> Outliers:
    """The cells that lie apart from all others of their feature.

    Args:
        array: Samples on axis 0.
        axis: Axis of the features.
    """
    moved = np.moveaxis(array, axis, -1)
    columns = moved.reshape(-1, moved.shape[-1])
    if len(columns) < MIN_SAMPLES:
        return Outliers(array, [])
    most = max(2, int(MAX_REPEATED_OUTLIER_SHARE * len(columns)))
    suspects = _stretched(columns, min(most, (len(columns) - 1) // 2))
    bounds = {c: b for c in suspects if (b := _bounds(columns[:, c])) is not None}
    if not bounds:
        return Outliers(array, [])
    usual = _usual(columns, bounds)
    clean, cells = columns.copy(), []
    for column, (low, high) in bounds.items():
        values = columns[:, column]
        for row in np.flatnonzero((values < low) | (values > high)):
            if usual is not None and usual[0] <= values[row] <= usual[1]:
                continue
            clean[row, column] = np.clip(values[row], low, high)
            place = np.unravel_index(row, moved.shape[:-1])
            index = list(map(int, place[1:]))
            index.insert(axis - 1, int(column))
            cells.append((int(place[0]), tuple(index), float(values[row]), float(clean[row, column])))
    return Outliers(np.moveaxis(clean.reshape(moved.shape), -1, axis), sorted(cells))


def _stretched(columns: np.ndarray, most: int) -> np.ndarray:
    """Features whose range is a multiple of what it is without so many of the values at each end."""
    ordered = np.partition(columns, [0, most, len(columns) - 1 - most, len(columns) - 1], axis=0)
    low, inner_low, inner_high, high = (
        ordered[i].astype(np.float64) for i in (0, most, len(columns) - 1 - most, len(columns) - 1)
    )
    return np.flatnonzero(high - low > MIN_GAP * (inner_high - inner_low))


def _bounds(values: np.ndarray) -> tuple[float, float] | None:
    """Smallest and largest value of a feature without what lies apart; None where nothing does."""
    values = np.sort(values[np.isfinite(values)].astype(np.float64))
    low, high = 0, len(values)
    while True:
        below, above = (_apart(values[low:high], end) for end in (False, True))
        if not below and not above:
            break
        low, high = (low + below, high) if below >= above else (low, high - above)
    return None if (low, high) == (0, len(values)) else (float(values[low]), float(values[high - 1]))


def _apart(values: np.ndarray, above: bool) -> int:
    """How many of sorted values lie apart at one end."""
    if above:
        values = -values[::-1]
    total = len(values)
    most = min(max(2, int(MAX_OUTLIER_SHARE * total)), total - MIN_SAMPLES + 2)
    repeated = int(np.searchsorted(values, values[0], side="right"))
    counts = np.arange(1, most + 1)
    if most < repeated <= MAX_REPEATED_OUTLIER_SHARE * total:
        counts = np.append(counts, repeated)
    gaps, spreads = values[counts] - values[counts - 1], values[-1] - values[counts]
    for which in np.flatnonzero((spreads > 0) & (gaps > MIN_GAP * spreads))[::-1]:
        rest, spread = values[counts[which] :], float(spreads[which])
        if gaps[which] > spread * _needed(rest, spread) and _needs_room(rest, values[0]):
            return int(counts[which])
    return 0


def _needed(rest: np.ndarray, spread: float) -> float:
    """Times the range of the other values that must be empty."""
    places = np.flatnonzero(np.diff(rest)) + 1
    starts = np.concatenate([[0], places, [len(rest)]])
    longest = int(np.argmax(np.diff(starts)))
    if starts[longest + 1] - starts[longest] > len(rest) / 2:
        others = len(rest) - int(starts[longest + 1] - starts[longest])
        if others < MIN_OTHER_VALUES:
            return MIN_GAP_OF_FEW_VALUES
        rest = np.delete(rest, slice(starts[longest], starts[longest + 1]))
    deviation = float(rest.std())
    return MIN_GAP * max(1.0, (spread / deviation / COMPACT_DEVIATIONS) ** 3 if deviation > 0 else 1.0)


def _needs_room(rest: np.ndarray, farthest: float) -> bool:
    """Whether the other values are no longer told apart where the farthest one is in range, too."""
    taken = np.unique(rest)
    return len(taken) > USUAL_LEVELS or bool(np.diff(taken).min() < (rest[-1] - farthest) / USUAL_LEVELS)


def _usual(columns: np.ndarray, bounds: Mapping[int, tuple[float, float]]) -> tuple[float, float] | None:
    """Values that are usual for a tensor whose features are much alike, such as an image's pixels."""
    low, high = columns.min(axis=0).astype(np.float64), columns.max(axis=0).astype(np.float64)
    for column, (lowest, highest) in bounds.items():
        low[column], high[column] = lowest, highest
    spread = high - low
    alive = spread > 0
    if alive.sum() < 2 * len(bounds) + 2:
        return None
    alike = alive & (spread <= SIMILAR_RANGE_RATIO * np.median(spread[alive]))
    return float(low[alike].min()), float(high[alike].max())


def _told(name: str, found: Outliers) -> list[str]:
    told = []
    for sample, index, value, taken in found.cells[:MAX_NAMED_CELLS]:
        place = f"feature {index[0]}" if len(index) == 1 else f"element {list(index)}"
        told.append(
            f"calibration: input {name!r}, sample {sample}, {place}: {value:g} lies far from all other"
            f" values; it is taken for {taken:g}, and the client will clip such values to the others' range"
        )
    if (more := len(found.cells) - MAX_NAMED_CELLS) > 0:
        told.append(f"calibration: so are {more} more cells of input {name!r}")
    return told
