"""How far values come beyond what calibration data showed: margins and rates of overflow, by extreme values.

Each end of each channel has a *unit*: the mean excess of its largest values over the next ones, which tells
how slowly its tail falls. Each sample is then measured against the range of all the others, in units: that is
what happens to a new one. What a sample comes beyond at most, over all channels, is one number, and the tail
of these numbers is taken for exponential past a threshold (a generalised Pareto distribution of shape 0:
Coles, An Introduction to Statistical Modeling of Extreme Values, chapter 4). That is careful: accumulators
mostly are sums of bounded terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[np.ndarray, np.ndarray]

TARGET = 1 / 3000
"""Share of the samples in which any accumulator of a circuit may be expected to leave its range: a third
of one in a thousand, for an estimate from a few hundred samples is good to within a factor of three or so."""
FEWEST, TAIL = 16, 8
"""Samples from which on there is a tail to look at, and that it has at least."""
WEIGHT = 4.0
"""A value that wraps around counts so many times its squared error: it is wrong without a word."""
LEAST, MOST = 0.1, 1.0
"""Shares of the width that a margin has at least, for new data is never quite like the old, and at most, for
past that a table would have no resolution left."""
TENTHS = (10, 25, 100)
"""Units are the largest mean excess of these parts of the samples: a heavy tail shows far out only."""
SHARES = (0.1, 0.05)
"""Parts of the samples that tails are fitted to; what reaches farthest counts."""
STEPS = 100
"""Margins that are compared."""
CHUNK = 2**24
"""Values that are looked at at once."""


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest value that each sample has in each channel of a tensor.

    Attributes:
        low, high: (samples, ...): axes of channels have their size, all others 1.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, keep: Sequence[int]) -> Extremes:
        """Those of a tensor (samples on axis 0) whose channels lie along the axes ``keep``."""
        gone = tuple(i for i in range(1, array.ndim) if i not in keep)
        return cls(array.min(axis=gone, keepdims=True), array.max(axis=gone, keepdims=True))

    @property
    def range(self) -> Interval:
        """Smallest and largest value of each channel, shaped as one sample."""
        return self.low.min(axis=0, keepdims=True), self.high.max(axis=0, keepdims=True)

    def take(self, samples: np.ndarray) -> Extremes:
        """Those of some samples."""
        return Extremes(self.low[samples], self.high[samples])


@dataclass(frozen=True)
class Tail:
    """The exponential tails of a number of which every sample has one.

    Attributes:
        values: The numbers, in order from the largest.
        fits: For each tail its threshold, the mean excess over it, and the share of the samples beyond it.
    """

    values: np.ndarray
    fits: tuple[tuple[float, float, float], ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Tail:
        """Fit the tails of at least two numbers; minus infinity is what cannot happen, and has none."""
        if not np.isfinite(values).all():
            return cls(np.sort(values)[::-1], ())
        ordered = np.sort(values)[::-1]
        counts = {min(max(TAIL, round(len(values) * s)), len(values) - 1) for s in SHARES}
        return cls(
            ordered,
            tuple(
                (float(ordered[k]), float(ordered[:k].mean() - ordered[k]), k / len(values))
                for k in sorted(counts)
            ),
        )

    def reach(self, rate: float) -> float:
        """What a share ``rate`` of the samples exceeds."""
        return max(u + mean * max(0.0, math.log(share / rate)) for u, mean, share in self.fits)

    def rates(self, limits: np.ndarray) -> np.ndarray:
        """Share of the samples that exceed each of ``limits``."""
        shares = [1 - np.searchsorted(self.values[::-1], limits, side="right") / len(self.values)]
        for u, mean, share in self.fits:
            if mean > 0:
                shares.append(np.where(limits > u, share * np.exp(-np.maximum(limits - u, 0) / mean), 0.0))
        return np.asarray(np.max(shares, axis=0))

    def rate(self, limit: float) -> float:
        """Share of the samples that exceed ``limit``."""
        return float(self.rates(np.asarray(limit)))


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
    elif len(seen.low) < FEWEST:
        above = below = MOST * _scale(low, high)
    else:
        units, excess = _measured(seen, None)
        tail = Tail.of(excess)
        far = max(0.0, tail.reach(target))
        reaches = (np.float64(far) if cells is None else _balanced(u, width, tail, cells, far) for u in units)
        above, below = (
            np.clip((r * u).reshape(low.shape), LEAST * width, MOST * width)
            for r, u in zip(reaches, units, strict=True)
        )
    if whole and margin:
        above, below = (np.maximum(np.ceil(m), 1.0) for m in (above, below))
    return low - below, high + above


def _balanced(unit: np.ndarray, width: np.ndarray, tail: Tail, cells: int, far: float) -> np.ndarray:
    """Units of margin, for each channel, at which cells and overflow together make the least squared error.

    Both as shares of the squared width: a cell is wrong by a twelfth of its own square, and a value that
    leaves the range by about the whole width.

    Args:
        unit: Of this end (channels).
        width: Of the observed range; as many as channels.
        tail: Of what samples come beyond, over all channels.
        cells: Entries of the table.
        far: No more units than these.
    """
    reaches = np.linspace(0.0, far, STEPS)[:, None]
    share = unit / np.maximum(width.reshape(-1), 1e-9)
    rates = tail.rates(reaches) / len(unit)
    error = (1 + 2 * reaches * share) ** 2 / (12 * cells**2) + WEIGHT * rates
    return np.asarray(reaches[np.argmin(error, axis=0), 0])


def excesses(seen: Extremes, spare: Interval) -> np.ndarray:
    """By how many units each sample exceeds declared bounds that were drawn around all the others.

    Args:
        seen: At least ``FEWEST`` samples.
        spare: How far the declared bounds lie below and above the observed ones, shaped as one sample;
            infinite where nothing can leave them.

    Returns:
        (samples), the largest over all channels; negative inside the bounds.
    """
    return _measured(seen, spare)[1]


def _scale(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What few samples say about the width of channels; a single one only says how much channels differ."""
    width = high - low
    whole = width.mean() if width.any() else high.max() - low.min()
    return np.asarray(np.maximum(width, whole))


def _measured(seen: Extremes, spare: Interval | None) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Units of the upper and of the lower ends (channels), and ``excesses`` (samples)."""
    total = len(seen.low)
    tops = (seen.high.reshape(total, -1), -seen.low.reshape(total, -1))
    channels = tops[0].shape[1]
    width = (tops[0].max(axis=0) + tops[1].max(axis=0)).astype(np.float64)
    beyond = np.full(total, -np.inf)
    units: list[np.ndarray] = []
    for end, values in enumerate(tops):
        room = None if spare is None else spare[1 - end].reshape(-1)
        parts, step = [], max(1, CHUNK // total)
        for start in range(0, channels, step):
            part = slice(start, start + step)
            spared = None if room is None else room[part]
            unit, found = _end(values[:, part].astype(np.float64), width[part], spared)
            parts.append(unit)
            beyond = np.maximum(beyond, found)
        units.append(np.concatenate(parts))
    return (units[0], units[1]), beyond


def _end(values: np.ndarray, width: np.ndarray, room: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Units of one end of some channels, and how far samples come beyond it at most."""
    ordered = np.sort(values, axis=0)[::-1]
    unit, without = (np.maximum(_unit(o), 0.01 * width + 1e-9) for o in (ordered, ordered[1:]))
    # The sample that has the largest value of all is measured against the range of the others.
    holds = values >= ordered[0]
    found = np.where(holds, (values - ordered[1]) / without, (values - ordered[0]) / unit)
    if room is not None:
        found = found - room / unit
    return unit, found.max(axis=1)


def _unit(ordered: np.ndarray) -> np.ndarray:
    counts = {min(max(3, -(-len(ordered) // t)), len(ordered) - 1) for t in TENTHS}
    return np.asarray(np.max([ordered[:k].mean(axis=0) - ordered[k] for k in counts], axis=0))


def distinct(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices of samples without their repetitions, which say nothing about what new samples do."""
    found: dict[bytes, int] = {}
    for index in range(len(next(iter(data.values())))):
        found.setdefault(b"".join(np.ascontiguousarray(a[index]).tobytes() for a in data.values()), index)
    return np.array(list(found.values()))
