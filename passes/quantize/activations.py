"""Quantizers of activations and inputs: scale and zero point; a scale per neuron where it is absorbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .squares import squared_errors
from .unseen import Unseen

SHRINK = np.linspace(0.15, 1.0, 35)
"""Shares of the observed range that are tried as the clipping point (LOWERING: r)."""
UNSEEN_GROWTH = (1.05, 1.1, 1.2, 1.3, 1.45, 1.6)
"""Multiples of the observed range that are tried too where tails say that new values go further."""
MAX_FITTED_ROWS = 8000
"""Rows of samples that a quantizer is fitted to."""
EXTRA_STEP_COUNTS = (24, 32, 48, 64, 96, 112)
"""Steps between 0 and the values that are tried besides those of the width itself; 8 bits hold them."""
NEGLIGIBLE_SCALE_SHARE = 1e-4
"""A share of a scale that makes as good as nothing of any integer."""
STORAGE_BITS = 8
"""Bits for which the stored integers leave no room to shift them."""
OFFSET_RANGE_SHARE = 0.5
"""A channel gets an offset where its values fill less than this share of their range with 0 in it."""
MIN_VALUE = 1e-34
"""Tensors that never go further from 0 are 0."""
MAX_SHUFFLED_ROWS = 2**20
"""Rows past which some may be chosen twice, as shuffling all takes long."""


@dataclass(frozen=True)
class Quantizer:
    """An affine quantizer: integers ``clip(round((x - offset) / scale) + zero_point, 0, 2^bits - 1)``.

    Attributes:
        scale: (1) for the whole tensor or (channels); 0 for a channel that is always taken for its offset.
        zero_point: The integer that stands for ``offset``; where it is none of them, that is not among the
            values.
        bits: Width.
        absorbed: Whether the weights that follow take the scale, and the bias behind them the offset, so that
            the quantized tensor has scale 1 and no offset.
        offset: As ``scale``; None for 0 everywhere.
        shape: To which scales and offsets are reshaped so that they broadcast with the tensor; None for
            channels on axis 1.
    """

    scale: np.ndarray
    zero_point: int
    bits: int
    absorbed: bool = False
    offset: np.ndarray | None = None
    shape: Sequence[int] | None = None

    @property
    def top(self) -> int:
        """Largest integer."""
        return (1 << self.bits) - 1

    @property
    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value that each channel has."""
        least = self.offsets - self.zero_point * self.scale
        return least, least + self.top * self.scale

    @property
    def inverse(self) -> np.ndarray:
        """What values are multiplied with: one over the scale."""
        return np.where(self.scale > 0, 1.0 / np.where(self.scale > 0, self.scale, 1.0), 0.0)

    @property
    def offsets(self) -> np.ndarray:
        """The offsets, 0 where there are none."""
        return np.zeros_like(self.scale) if self.offset is None else self.offset

    def apply(self, values: np.ndarray) -> np.ndarray:
        """What ``values`` (rows, channels) become after quantizing and dequantizing."""
        steps = np.rint((values - self.offsets) * self.inverse)
        codes = np.clip(steps + self.zero_point, 0, self.top)
        return np.asarray((codes - self.zero_point) * self.scale + self.offsets)

    def with_scale(self, scale: np.ndarray) -> Quantizer:
        """Other scales; offsets move so that the middle of what is not clipped stays where it is."""
        if self.offset is None:
            return replace(self, scale=scale)
        moved = self.offset + (self.top / 2 - self.zero_point) * (self.scale - scale)
        return replace(self, scale=scale, offset=np.where(self.offset == 0, 0.0, moved))

    def along(self, array: np.ndarray, rank: int) -> np.ndarray:
        """Scales or offsets, shaped to broadcast with the tensor, of that rank."""
        return array.reshape(self.shape or [1, -1] + [1] * (rank - 2))


def fit_quantizer(
    values: np.ndarray,
    bits: int,
    method: str,
    percentile: float,
    per_channel: bool,
    shifts: bool = False,
    unseen: bool = True,
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
        unseen: Whether values beyond those observed count, for ``mse``: a scale that holds them is larger.
    """
    columns = values if per_channel else values.reshape(-1, 1)
    if method == "percentile":
        low, high = np.percentile(columns.astype(np.float64), [100 - percentile, percentile], axis=0)
    else:
        low, high = (a.astype(np.float64) for a in (columns.min(axis=0), columns.max(axis=0)))
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    # One over a step of these is no float32 any more: they are taken for 0.
    low, high = np.where(low > -MIN_VALUE, 0.0, low), np.where(high < MIN_VALUE, 0.0, high)
    if method != "mse":
        return _spanning(low, high, bits)
    return _least_squares(columns, low, high, bits, shifts and bits < STORAGE_BITS, unseen)


def to_powers_of_two(quantizer: Quantizer, values: np.ndarray, clips: bool) -> Quantizer:
    """The quantizer with the powers of two next to its scales: whichever loses less on the observed values.

    Args:
        quantizer: Scales of any size.
        values: (rows, channels), those that it was fitted to.
        clips: Whether a scale may be smaller than it was, so that more values are clipped.
    """
    columns = values if len(quantizer.scale) > 1 else values.reshape(-1, 1)
    sample = some_rows(columns)
    used = quantizer.scale > 0
    exponent = np.log2(np.where(used, quantizer.scale, 1.0))
    coarse = quantizer.with_scale(np.where(used, 2.0 ** np.ceil(exponent - 1e-9), 0.0))
    if not clips:
        return coarse
    fine = quantizer.with_scale(np.where(used, 2.0 ** np.floor(exponent + 1e-9), 0.0))
    errors = [((q.apply(sample) - sample) ** 2).mean(axis=0) for q in (coarse, fine)]
    return quantizer.with_scale(np.where(errors[1] < errors[0], fine.scale, coarse.scale))


def with_offsets(quantizer: Quantizer, values: np.ndarray, method: str) -> Quantizer:
    """The quantizer with an offset for each channel that so loses far less: values that stay far from 0.

    Args:
        quantizer: A scale for each channel.
        values: (rows, channels), those that it was fitted to.
        method: As for ``fit_quantizer``; ranges are clipped with ``mse`` only.
    """
    low, high = (a.astype(np.float64) for a in (values.min(axis=0), values.max(axis=0)))
    far = high - low < OFFSET_RANGE_SHARE * (np.maximum(high, 0.0) - np.minimum(low, 0.0))
    if not far.any():
        return quantizer
    sample = some_rows(values)[:, far]
    spread = high[far] - low[far]
    known = quantizer.with_scale(np.broadcast_to(quantizer.scale, low.shape)[far])
    best = squared_error(known, sample) * OFFSET_RANGE_SHARE**2
    scale, offset = known.scale.copy(), np.zeros_like(known.scale)
    for share in SHRINK if method == "mse" else (1.0,):
        for anchor in (0.0, 0.5, 1.0):
            tried = grid(low[far] + anchor * (1 - share) * spread, share * spread, quantizer)
            now = squared_error(tried, sample)
            better = (now < best) & (spread > 0)
            best = np.where(better, now, best)
            scale, offset = np.where(better, tried.scale, scale), np.where(better, tried.offsets, offset)
    # A channel that never varies is its offset; the scale that it keeps is a usual one.
    offset = np.where(spread == 0, low[far], offset)
    scales, offsets = np.broadcast_to(quantizer.scale, low.shape).copy(), np.zeros_like(low)
    scales[far], offsets[far] = scale, offset
    return replace(quantizer, scale=scales, offset=offsets) if np.any(offsets) else quantizer


def grid(low: np.ndarray, spread: np.ndarray, like: Quantizer) -> Quantizer:
    """The quantizer whose integers run over [low, low + spread] of each channel."""
    scale = spread / like.top
    return replace(like, scale=scale, offset=low + like.zero_point * scale)


def squared_error(quantizer: Quantizer, sample: np.ndarray) -> np.ndarray:
    """Mean squared error of each channel of ``sample`` (rows, channels)."""
    if quantizer.offset is None and quantizer.scale.shape == sample.shape[1:]:
        found = squared_errors(sample, quantizer.scale[None], quantizer.zero_point, quantizer.top)
        return np.asarray(found[0])
    return np.asarray(((quantizer.apply(sample) - sample) ** 2).mean(axis=0))


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
        typical *= NEGLIGIBLE_SCALE_SHARE  # no integer of it is 0
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
    shares = sorted({*range(1, top + 2, max(1, (top + 1) // 16)), *EXTRA_STEP_COUNTS})
    return [-s for s in shares] if np.any(high > 0) else [top + s for s in shares]


def _least_squares(
    columns: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int, shifts: bool, unseen: bool
) -> Quantizer:
    top = 2**bits - 1
    sample = some_rows(columns)
    beyond = Unseen.of(columns, sample)
    best: tuple[float, Quantizer] | None = None
    # Whole numbers (indices, conditions, pixels as they come) stay what they are, where they fit.
    counts = np.array_equal(columns, np.rint(columns))
    for zero in [*_zero_points(low, high, top), *(_outside(low, high, top) if shifts else [])]:
        whole = _scale(low, high, zero, top)
        ones = [np.ones_like(whole)] if counts and 0 < whole.max() <= 1 else []
        tried = np.stack([*ones, *(whole * s for s in (*SHRINK, *(UNSEEN_GROWTH if unseen else ())))])
        errors = squared_errors(sample, tried, zero, top)
        if unseen:
            errors += beyond.loss(-zero * tried, -zero * tried + top * tried)
        first = np.where(np.isnan(errors), np.inf, errors).argmin(axis=0)[None]
        scale, error = (np.take_along_axis(a, first, axis=0)[0] for a in (tried, errors))
        # Of values so large that every error is infinite.
        scale = np.where(np.isfinite(error), scale, whole)
        if best is None or float(error.sum()) < best[0] * 0.999:
            best = float(error.sum()), Quantizer(scale, zero, bits)
    assert best is not None
    return best[1]


def some_rows(columns: np.ndarray) -> np.ndarray:
    """Some rows, in double precision."""
    # A seeded choice, not a stride: a stride meets the same pixels again and again.
    random, total = np.random.default_rng(0), len(columns)
    chosen = (
        random.integers(0, total, MAX_FITTED_ROWS)
        if total > MAX_SHUFFLED_ROWS
        else random.permutation(total)[:MAX_FITTED_ROWS]
    )
    return np.asarray(columns[chosen], np.float64)
