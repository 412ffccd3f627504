"""Interval arithmetic: the smallest and largest value of a result, from those of its operands.

The same rules hold for the bounds of a whole tensor, which are two numbers, and for those of every element,
which are two arrays that broadcast: the verifier's proof that float32 is exact (``ir.intervals``) needs the
first, the ranges that a circuit declares (``analysis.ranges``) the second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TypeVar

import numpy as np

Bounds = tuple[float, float]
"""Smallest and largest value of a whole tensor."""
Interval = tuple[np.ndarray, np.ndarray]
"""Smallest and largest value of every element or channel of a tensor."""

End = TypeVar("End", float, np.ndarray)


def negated(x: tuple[End, End]) -> tuple[End, End]:
    """Bounds of -x."""
    low, high = x
    return -high, -low


def added(x: tuple[End, End], y: tuple[End, End]) -> tuple[End, End]:
    """Bounds of x + y."""
    return x[0] + y[0], x[1] + y[1]


def subtracted(x: tuple[End, End], y: tuple[End, End]) -> tuple[End, End]:
    """Bounds of x - y."""
    return x[0] - y[1], x[1] - y[0]


def multiplied(x: tuple[End, End], y: tuple[End, End]) -> tuple[End, End]:
    """Bounds of x * y: they are products of ends."""
    corners = [a * b for a in x for b in y]
    return reduce(np.minimum, corners), reduce(np.maximum, corners)


def weighted(
    x: Interval | Bounds,
    positive: Callable[[np.ndarray | float], np.ndarray],
    negative: Callable[[np.ndarray | float], np.ndarray],
) -> Interval:
    """Bounds of a linear map of x.

    Args:
        x: Bounds of what the map reads.
        positive, negative: The map with its positive weights alone, and with its negative ones.
    """
    low, high = x
    return positive(low) + negative(high), positive(high) + negative(low)
