"""Float tensors seen as integers: value = integers * scale + offset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import spread
from ...ir import runtime

RATIO_TOLERANCE = 1e-5
"""Scales whose ratio is this near (relative) to a whole number are taken to have it."""
MAX_MULTIPLIER_ERROR = 1.0 / 512
"""Largest relative error of a multiplier where no small whole number will do."""
MAX_DENOMINATOR = 64
"""Largest denominator of a ratio of two scales."""
MAX_MULTIPLE = 256
"""Largest whole number that makes the scales of one tensor equal."""


@dataclass(frozen=True)
class View:
    """How a float tensor is held.

    Attributes:
        integers: The integer tensor.
        scale: Positive or negative, broadcastable to the tensor (rank of the tensor).
        offset: Broadcastable to the tensor.
    """

    integers: ir.Value
    scale: np.ndarray
    offset: np.ndarray

    @property
    def uniform(self) -> bool:
        """One scale for the whole tensor and no offset."""
        return self.scale.size == 1 and not np.any(self.offset)


def rank_of(value: ir.Value) -> int:
    """Rank of a value whose shape inference has run."""
    assert value.shape is not None, value.name
    return len(value.shape)


def through(node: ir.Node, array: np.ndarray, source: ir.Value, opset: int) -> np.ndarray:
    """What a layout operator makes of a scale or an offset of its input."""
    if array.size == 1:
        return array.reshape([1] * rank_of(node.outputs[0]))
    (moved,) = runtime.run_nodes([node], {source: spread(array, source)}, node.outputs, opset)
    return moved


def whole_multiples(scale: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Write every scale as a whole number times one unit: (whole numbers, unit).

    Windows of an average pooling that reach into the padding divide by less: 4, 6 and 9 have the common
    multiple 36. None where the ratios are no fractions of small whole numbers.
    """
    unit = float(np.abs(scale).max())
    if unit == 0:
        return None
    ratios = [Fraction(float(s) / unit).limit_denominator(MAX_DENOMINATOR) for s in scale.reshape(-1)]
    common = math.lcm(*(r.denominator for r in ratios))
    whole = np.array([float(r * common) for r in ratios]).reshape(scale.shape)
    unit /= common
    if np.abs(whole).max() > MAX_MULTIPLE or np.any(
        np.abs(whole * unit - scale) > RATIO_TOLERANCE * np.abs(scale)
    ):
        return None
    return whole, unit


@dataclass(frozen=True)
class Common:
    """A common unit of two scales: ``first ~ a * scale`` and ``second ~ b * scale`` with whole a and b.

    Attributes:
        a, b: Integer multipliers, broadcastable.
        scale: The common unit.
        error: Largest relative error of a multiplier; 0 where the ratio is exact.
    """

    a: np.ndarray
    b: np.ndarray
    scale: np.ndarray
    error: float


def common_unit(first: np.ndarray, second: np.ndarray) -> Common:
    """Find the unit in which two scales are whole multiples, per channel."""
    x, y = np.broadcast_arrays(first.astype(np.float64), second.astype(np.float64))
    a, b = np.ones(x.shape), np.ones(x.shape)
    scale, worst = np.ones(x.shape), 0.0
    for index in np.ndindex(x.shape):
        ratio = abs(x[index] / y[index])
        fraction = _whole_ratio(ratio)
        a[index], b[index] = fraction.numerator, fraction.denominator
        scale[index] = abs(y[index]) / fraction.denominator
        error = abs(float(fraction) / ratio - 1.0)
        worst = max(worst, error if error > RATIO_TOLERANCE else 0.0)
    return Common(a * np.sign(x), b * np.sign(y), scale, worst)


def _whole_ratio(ratio: float) -> Fraction:
    for whole in (Fraction(round(ratio) or 1), Fraction(1, round(1 / ratio) or 1)):
        if abs(float(whole) / ratio - 1.0) <= RATIO_TOLERANCE:
            return whole
    for limit in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, MAX_DENOMINATOR):
        small = Fraction(ratio).limit_denominator(limit)
        if small > 0 and abs(float(small) / ratio - 1.0) <= MAX_MULTIPLIER_ERROR:
            return small
    # Where one side is finer than the other by far, the finer one hardly counts and the coarser one is exact.
    whole = Fraction(max(1, round(ratio))) if ratio > 1 else Fraction(1, max(1, round(1 / ratio)))
    nearest = [f for f in (whole, Fraction(ratio).limit_denominator(MAX_DENOMINATOR)) if f > 0]
    return min(nearest, key=lambda f: abs(float(f) / ratio - 1.0))
