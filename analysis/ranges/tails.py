"""How far values come beyond what calibration data showed: the tails of accumulators, by extreme values.

Every channel has two *ends*. The values of one end past a threshold are taken for a generalised Pareto
distribution (Coles, An Introduction to Statistical Modeling of Extreme Values, chapter 4). A few hundred
samples tell little of one end alone, so the ends of a tensor learn from each other: they share one shape,
which is pulled towards that of a sum of many terms, and the scale of each, as a share of its standard
deviation, is pulled towards that of the others as far as chance explains the difference. A sample may also be
unlike all that were seen, which no tail tells: the chance of that is about one in as many as there were
(Good, The population frequencies of species and the estimation of population parameters, 1953).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.interval_arithmetic import Interval

MIN_SAMPLES = 16
"""Samples from which on there is a tail to look at."""
MIN_TAIL_SAMPLES = 8
"""Samples that a tail has at least."""
TAIL_DIVISOR = 10
"""A tail is one of so many equal parts of the samples: the largest tenth."""
OWN_SHAPE_ERRORS = 1.5
"""By how many times the root of its samples an end's own shape has to exceed the common one to count: its
standard error is about 1.3."""
SHAPE, PULL, SHAPES = -0.02, 0.7, (-0.4, 0.5)
"""The usual shape of a tail, how strongly the one that is seen is pulled to it, and the shapes that are
believed: sums of many bounded terms end somewhere, but a few hundred samples do not tell where."""
UNLIKE_SHARE = 0.09
"""Share of the width by which a sample that is unlike all others comes beyond a range, in the mean."""
MIN_EXCESS_SHARE = 0.01
"""Least mean excess, as a share of the width: ties do not end a tail."""
MIN_SCALE_VARIANCE = 0.02
"""Least variance of the logarithms of scales that is not put down to chance."""


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
class Tails:
    """The tails of both ends of every channel of a tensor: all upper ends, then all lower ones.

    Attributes:
        samples: How many were seen.
        width: (ends) of the observed ranges.
        beyond: (ends) from the threshold to the largest value that was seen.
        scale: (ends) of the distribution past the threshold.
        share: Share of the samples that lie past a threshold.
        shape: (ends) of the tails; never 0.
        together: Ends that one sample leaves at once, where it leaves any.
    """

    samples: int
    width: np.ndarray
    beyond: np.ndarray
    scale: np.ndarray
    share: float
    shape: np.ndarray
    together: float

    @classmethod
    def of(cls, seen: Extremes) -> Tails:
        """Fit the tails of at least ``MIN_SAMPLES`` samples."""
        total = len(seen.low)
        sides = [a.reshape(total, -1).astype(np.float64) for a in (seen.high, -seen.low)]
        width = np.tile(sides[0].max(axis=0) + sides[1].max(axis=0), 2)
        count = min(max(MIN_TAIL_SAMPLES, total // TAIL_DIVISOR), total - 1)
        fits = [_Side.of(ends, count, width[: ends.shape[1]]) for ends in sides]
        excesses = np.concatenate([f.excesses for f in fits], axis=1)
        farthest = excesses.max(axis=1)
        level = np.sort(farthest)[-MIN_TAIL_SAMPLES]
        together = float((excesses >= level).sum() / (farthest >= level).sum())
        beyond, scale, shape = (
            np.concatenate([getattr(f, name) for f in fits]) for name in ("beyond", "scale", "shape")
        )
        return cls(total, width, beyond, scale, count / total, shape, together)

    def rates(self, margins: np.ndarray) -> np.ndarray:
        """Share of the samples in which each end is left beyond a margin.

        Args:
            margins: (..., ends), in the units of the values; infinite where an end cannot be left.

        Returns:
            (..., ends); their sum is the share of the samples in which any end is left.
        """
        past = np.maximum(self.beyond + margins, 0.0) / self.scale
        tail = self.share * np.maximum(1 + self.shape * past, 0.0) ** (-1 / self.shape)
        unlike = np.exp(-margins / (UNLIKE_SHARE * self.width + 1e-9)) / self.samples
        return np.asarray(tail / self.together + unlike / len(self.width))

    def margins(self, target: float) -> np.ndarray:
        """Margins (ends) with which about a share ``target`` of the samples leaves any end."""
        rate = target / len(self.width) * self.together
        past = ((self.share / rate) ** self.shape - 1) / self.shape
        unlike = UNLIKE_SHARE * self.width * np.log(max(1.0, 1 / (self.samples * target)))
        return np.asarray(np.maximum(self.scale * past - self.beyond, unlike))


@dataclass(frozen=True)
class _Side:
    """The upper ends of all channels, or (of negated values) the lower ones.

    Attributes:
        beyond, scale, shape: (ends) as those of ``Tails``.
        excesses: (samples, ends) over the threshold, as multiples of their mean.
    """

    beyond: np.ndarray
    scale: np.ndarray
    shape: np.ndarray
    excesses: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, count: int, width: np.ndarray) -> _Side:
        """Fit the ``count`` largest of ``values`` (samples, ends)."""
        ordered = np.sort(values, axis=0)[::-1]
        top, start = ordered[0], ordered[count]
        tail = np.maximum(ordered[:count] - start, 0.0)
        mean = _pulled(tail.mean(axis=0), values.std(axis=0), count)
        mean = np.maximum(mean, MIN_EXCESS_SHARE * width + 1e-9)
        shape = _shape(tail, mean)
        return cls(top - start, mean * (1 - shape), shape, np.maximum(values - start, 0.0) / mean)


def _pulled(means: np.ndarray, spreads: np.ndarray, count: int) -> np.ndarray:
    """Mean excesses (ends) of ``count`` samples each, pulled towards what they usually are of the spread."""
    alive = (means > 0) & (spreads > 0)
    if not alive.any():
        return means
    logs = np.log(means[alive] / spreads[alive])
    middle, chance = np.median(logs), 1 / count
    real = max(float(logs.var()) - chance, MIN_SCALE_VARIANCE)
    pulled = means.copy()
    pulled[alive] = spreads[alive] * np.exp(middle + (logs - middle) * real / (real + chance))
    return pulled


def _shape(tail: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Shapes (ends): one for all, from excesses (samples, ends), and more where an end surely has more."""
    common = float(_moments(np.sort((tail / mean).reshape(-1))[::-1, None])[0])
    common = float(np.clip(SHAPE + (1 - PULL) * (common - SHAPE), *SHAPES))
    own = _moments(tail) - OWN_SHAPE_ERRORS / np.sqrt(len(tail))
    shape = np.clip(np.maximum(common, own), None, max(SHAPES))
    return np.where(np.abs(shape) > 1e-6, shape, 1e-6)


def _moments(tail: np.ndarray) -> np.ndarray:
    """Shapes of generalised Pareto distributions (ends), by probability-weighted moments.

    Hosking and Wallis, Parameter and quantile estimation for the generalized Pareto distribution, 1987.

    Args:
        tail: (samples, ends), each column from the largest excess down.
    """
    size = len(tail)
    weights = (np.arange(size, 0, -1) - 0.35) / size
    first, second = tail.mean(axis=0), (tail * (1 - weights)[:, None]).mean(axis=0)
    rest = first - 2 * second
    return np.asarray(np.where(rest > 0, 2 - first / np.where(rest > 0, rest, 1.0), -np.inf))


def distinct(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices of samples without their repetitions, which say nothing about what new samples do."""
    found: dict[bytes, int] = {}
    for index in range(len(next(iter(data.values())))):
        found.setdefault(b"".join(np.ascontiguousarray(a[index]).tobytes() for a in data.values()), index)
    return np.array(list(found.values()))
