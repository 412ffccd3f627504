"""Accumulator-aware rounding: integer weights whose accumulator fits a number of bits, whatever the input.

The guarantee is that of A2Q (Colbert et al., 2023, arXiv 2308.13504): an accumulator of inputs in [low, high]
spans exactly ``sum |q_i| (high_i - low_i)``, so that sum has to stay within 2^bits - 1. A2Q trains towards
that; this takes weights back one step at a time, the one that the layer's output misses least first.
"""

from __future__ import annotations

import numpy as np

from ...ir.errors import LimitError
from .weights import QuantizedWeight, output_error

STEP_BACK_ROUNDS = 64
"""A row far over the limit takes several steps back at once: about this many rounds in all."""
MAX_IMPROVING_STEPS = 200
"""Most improving steps of a row that fits."""


def spans(integers: np.ndarray, input_low: np.ndarray | float, input_high: np.ndarray | float) -> np.ndarray:
    """Largest minus smallest accumulator of each channel over all inputs, exactly: (out) int64.

    Args:
        integers: (out, in) integer weights.
        input_low, input_high: Range of the integers that each weight meets: one number or (in). Where a
            convolution pads, it has to contain 0.
    """
    weights = np.abs(np.rint(integers)).astype(np.int64)
    return np.asarray(weights @ _widths(weights.shape[1], input_low, input_high))


def limit_accumulator(
    integers: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    moments: list[np.ndarray],
    input_low: np.ndarray | float,
    input_high: np.ndarray | float,
    bits: int,
) -> np.ndarray:
    """Move integer weights towards zero until every channel's accumulator fits ``bits`` bits for any input.

    Each step goes where it adds least to (Q s - W) H (Q s - W)^T for what it saves; by the cross terms of H
    later steps make up for earlier ones. Then single steps either way that fit and improve are taken.

    Args:
        integers: (out, in) quantized weights; 0 stays 0.
        scale: (out) positive.
        weights: (out, in) float weights that ``integers * scale[:, None]`` approximates.
        moments: Second moment (in, in) of the inputs of each group of output channels.
        input_low, input_high: Range of the integers that each weight meets: one number or (in). Where a
            convolution pads, it has to contain 0.
        bits: Width that every accumulator has to fit: its span (largest minus smallest value) stays at or
            below ``2^bits - 1``, so that with an offset ``bits`` unsigned bits hold every value.

    Returns:
        (out, in) integers, none of them larger in absolute value than the largest of its row before.

    Raises:
        LimitError: Not even one step of one weight fits.
    """
    width = _widths(integers.shape[1], input_low, input_high)
    budget = 2**bits - 1
    result = np.rint(integers).astype(np.float64)
    if np.all(spans(result, input_low, input_high) <= budget):
        return np.asarray(result)
    met = width[np.any(result != 0, axis=0)]
    if met.min() > budget:
        raise LimitError(
            f"no weight fits an accumulator of {bits} bits",
            found=f"inputs that span {int(met.min()) + 1} values",
            allowed=f"at most {budget + 1}",
            do="allow the accumulator more bits, or give inputs and activations fewer",
        )
    rows = np.array_split(np.arange(len(result)), len(moments))
    for channels, moment in zip(rows, moments, strict=True):
        # Without a floor, inputs that calibration hardly showed would cost nothing to drop.
        h = moment + np.eye(len(moment)) * (1e-3 * float(np.diag(moment).mean()) + 1e-12)
        for channel in channels:
            if np.abs(result[channel]) @ width > budget:
                row = _Row(result[channel], float(scale[channel]), weights[channel], h, width, budget)
                row.shrink()
                row.polish()
    return np.asarray(result)


def fit_within(
    fits: list[QuantizedWeight],
    weights: np.ndarray,
    moments: list[np.ndarray],
    input_low: np.ndarray | float,
    input_high: np.ndarray | float,
    bits: int,
) -> QuantizedWeight:
    """Limit several quantizations of one layer and keep the best of each channel.

    Under a tight limit a coarse scale (small integers) often loses less than dropping weights at a fine one.

    Args:
        fits: Quantizations with different scales; the rest as in ``limit_accumulator``.
    """
    best = np.full(len(weights), np.inf)
    integers, scale = np.zeros(weights.shape), np.ones(len(weights))
    for fit in fits:
        limited = limit_accumulator(fit.integers, fit.scale, weights, moments, input_low, input_high, bits)
        error = output_error(limited * fit.scale[:, None] - weights, moments)
        better = error < best
        best = np.where(better, error, best)
        integers[better], scale[better] = limited[better], fit.scale[better]
    return QuantizedWeight(integers, scale)


class _Row:
    """One channel: its integers (changed in place), and the gradient of its error."""

    def __init__(
        self,
        integers: np.ndarray,
        scale: float,
        weights: np.ndarray,
        h: np.ndarray,
        width: np.ndarray,
        budget: int,
    ) -> None:
        self.q, self.scale, self.h, self.width, self.budget = integers, scale, h, width, budget
        self.top = float(np.abs(integers).max())
        self.allowed = integers != 0
        self.pull = scale * (integers * scale - weights) @ h  # half the gradient by q
        self.curve = scale * scale * np.diag(h)

    def shrink(self) -> None:
        """Take steps towards zero until the row fits."""
        need = int(np.abs(self.q) @ self.width) - self.budget
        at_once = max(1, int(need / max(1, int(self.width.max())) / STEP_BACK_ROUNDS))
        while need > 0:
            step = -np.sign(self.q)
            # What a step costs for what it saves; weights whose input never changes save nothing.
            movable = (self.q != 0) & (self.width > 0)
            cost = (2 * step * self.pull + self.curve) / np.maximum(self.width, 1)
            cost = np.where(movable, cost, np.inf)
            chosen = np.argsort(cost, kind="stable")[: min(at_once, int(movable.sum()))]
            # Not more of them than needed.
            saved = np.cumsum(self.width[chosen])
            chosen = chosen[: int(np.searchsorted(saved, need)) + 1]
            self._move(chosen, step[chosen])
            need = int(np.abs(self.q) @ self.width) - self.budget

    def polish(self) -> None:
        """Take single steps that fit and lower the error, the best first."""
        left = self.budget - int(np.abs(self.q) @ self.width)
        for _ in range(MAX_IMPROVING_STEPS):
            step = -np.sign(self.pull)
            gain = 2 * step * self.pull + self.curve
            grown = np.abs(self.q + step)
            fits = (grown - np.abs(self.q)) * self.width <= left
            gain = np.where(fits & (grown <= self.top) & self.allowed, gain, np.inf)
            best = int(gain.argmin())
            if gain[best] >= -1e-12:
                return
            self._move(np.array([best]), step[best : best + 1])
            left = self.budget - int(np.abs(self.q) @ self.width)

    def _move(self, places: np.ndarray, steps: np.ndarray) -> None:
        self.q[places] += steps
        self.pull += self.scale * self.scale * (steps @ self.h[places])


def _widths(count: int, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """How many steps each input can take, (in) int64."""
    width = np.ceil(np.asarray(high, np.float64)) - np.floor(np.asarray(low, np.float64))
    return np.broadcast_to(np.maximum(width, 0).astype(np.int64), (count,))
