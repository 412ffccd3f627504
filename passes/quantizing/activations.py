"""Quantizers of activations and inputs: scale and zero point; a scale per neuron where it is absorbed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINK = np.linspace(0.15, 1.0, 35)
"""Shares of the observed range that are tried as the clipping point (LOWERING: r)."""
MOST_ROWS = 8000
FAR = (24, 32, 48, 64, 96, 112)
"""Steps between 0 and the values that are tried besides those of the width itself; 8 bits hold them."""
HARDLY = 1e-4
"""A share of a scale that makes as good as nothing of any integer."""
WIDEST = 8
"""Bits for which the stored integers leave no room to shift them."""
MANY = 2**20
"""Rows from which on some may be chosen twice, as shuffling all takes long."""


@dataclass(frozen=True)
class Quantizer:
    """An affine quantizer: integers ``clip(round(x / scale) + zero_point, 0, 2^bits - 1)``.

    Attributes:
        scale: (1) for the whole tensor or (channels).
        zero_point: The integer that stands for 0; where it is none of them, 0 is not among the values.
        bits: Width.
        absorbed: Whether the weights that follow take the scale, so that the quantized tensor has scale 1.
    """

    scale: np.ndarray
    zero_point: int
    bits: int
    absorbed: bool = False

    @property
    def top(self) -> int:
        """Largest integer."""
        return (1 << self.bits) - 1

    def apply(self, values: np.ndarray) -> np.ndarray:
        """What ``values`` (rows, channels) become after quantizing and dequantizing."""
        codes = np.clip(np.rint(values / self.scale) + self.zero_point, 0, self.top)
        return np.asarray((codes - self.zero_point) * self.scale)


def fit_quantizer(
    values: np.ndarray, bits: int, method: str, percentile: float, per_channel: bool, shifts: bool = False
) -> Quantizer:
    """Choose scale and zero point for observed values.

    Args:
        values: (rows, channels).
        bits: Width, 1 to 8.
        method: ``min-max``, ``percentile`` or ``mse``.
        percentile: For ``percentile``: this share of the values (in percent) is inside the range.
        per_channel: A scale for each channel; the zero point is shared.
        shifts: Whether 0 may lie outside of the range, for ``mse``: integers then start further up, or end
            further down.
    """
    columns = values if per_channel else values.reshape(-1, 1)
    if method == "percentile":
        low, high = np.percentile(columns.astype(np.float64), [100 - percentile, percentile], axis=0)
    else:
        low, high = (a.astype(np.float64) for a in (columns.min(axis=0), columns.max(axis=0)))
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if method != "mse":
        return _spanning(low, high, bits)
    return _least_squares(columns, low, high, bits, shifts and bits < WIDEST)


def to_powers_of_two(quantizer: Quantizer, values: np.ndarray, clips: bool) -> Quantizer:
    """The quantizer with the powers of two next to its scales: whichever loses less on the observed values.

    Args:
        quantizer: Scales of any size.
        values: (rows, channels), those that it was fitted to.
        clips: Whether a scale may be smaller than it was, so that more values are clipped.
    """
    columns = values if len(quantizer.scale) > 1 else values.reshape(-1, 1)
    sample = _sample(columns)
    exponent = np.log2(quantizer.scale)
    coarse = Quantizer(2.0 ** np.ceil(exponent - 1e-9), quantizer.zero_point, quantizer.bits)
    if not clips:
        return coarse
    fine = Quantizer(2.0 ** np.floor(exponent + 1e-9), quantizer.zero_point, quantizer.bits)
    errors = [((q.apply(sample) - sample) ** 2).mean(axis=0) for q in (coarse, fine)]
    scale = np.where(errors[1] < errors[0], fine.scale, coarse.scale)
    return Quantizer(scale, quantizer.zero_point, quantizer.bits)


def _spanning(low: np.ndarray, high: np.ndarray, bits: int) -> Quantizer:
    top = 2**bits - 1
    zero = _zero_points(low, high, top)[0]
    return Quantizer(_scale(low, high, zero, top), zero, bits)


def _scale(low: np.ndarray, high: np.ndarray, zero: int, top: int) -> np.ndarray:
    """The smallest scale at which [low, high] fits around the zero point."""
    above = high / (top - zero) if zero < top else np.zeros_like(high)
    below = -low / zero if zero > 0 else np.zeros_like(low)
    scale = np.maximum(above, below)
    # A channel that never leaves 0 keeps the typical scale: it must not blow up what comes later.
    typical = float(np.median(scale[scale > 0])) if np.any(scale > 0) else 1.0
    if not 0 <= zero <= top:
        typical *= HARDLY  # no integer of it is 0
    return np.where(scale > 0, scale, typical)


def _zero_points(low: np.ndarray, high: np.ndarray, top: int) -> list[int]:
    """Zero points worth trying: the one of the whole range, and its neighbours."""
    if not np.any(low < 0):
        return [0]
    if not np.any(high > 0):
        return [top]
    share = float(-low.min() / (high.max() - low.min()))
    middle = round(share * top)
    around = [middle, middle - 1, middle + 1, 0, round(float(np.mean(-low / (high - low + 1e-30))) * top)]
    return [z for z in dict.fromkeys(around) if 0 <= z <= top]


def _outside(low: np.ndarray, high: np.ndarray, top: int) -> list[int]:
    """Zero points with which no integer stands for 0: of values above it, or below.

    Integers so far from 0 widen what they meet, but not their tables, and up to 9 bits that costs nothing.
    """
    if np.any(low < 0) and np.any(high > 0):
        return []
    shares = sorted({*range(1, top + 2, max(1, (top + 1) // 16)), *FAR})
    return [-s for s in shares] if np.any(high > 0) else [top + s for s in shares]


def _least_squares(
    columns: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int, shifts: bool
) -> Quantizer:
    top = 2**bits - 1
    sample = _sample(columns)
    best: tuple[float, Quantizer] | None = None
    # Whole numbers (indices, conditions, pixels as they come) stay what they are, where they fit.
    counts = np.array_equal(columns, np.rint(columns))
    for zero in [*_zero_points(low, high, top), *(_outside(low, high, top) if shifts else [])]:
        whole = _scale(low, high, zero, top)
        error = np.full(whole.shape, np.inf)
        scale = whole.copy()
        ones = [1 / float(whole.max())] if counts and 0 < whole.max() <= 1 else []
        for share in (*ones, *SHRINK):
            tried = Quantizer(np.ones_like(whole) if share in ones else whole * share, zero, bits)
            now = ((tried.apply(sample) - sample) ** 2).mean(axis=0)
            scale = np.where(now < error, tried.scale, scale)
            error = np.minimum(now, error)
        if best is None or float(error.sum()) < best[0] * 0.999:
            best = float(error.sum()), Quantizer(scale, zero, bits)
    assert best is not None
    return best[1]


def _sample(columns: np.ndarray) -> np.ndarray:
    """Some rows, in double precision."""
    # A seeded choice, not a stride: a stride meets the same pixels again and again.
    random, total = np.random.default_rng(0), len(columns)
    chosen = random.integers(0, total, MOST_ROWS) if total > MANY else random.permutation(total)[:MOST_ROWS]
    return np.asarray(columns[chosen], np.float64)
