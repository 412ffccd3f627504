"""Bounds of the values of the encrypted region, and the proof that float32 holds them exactly."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dialect import DOMAIN
from .errors import LimitError
from .graph import LAYOUT, LINEAR, constant_of, int_of

EXACT = 2**24
"""float32 holds every integer below this exactly."""

Interval = tuple[float, float]


def interval_of(node: ir.Node, ranges: dict[ir.Value, Interval]) -> Interval | None:
    """Bounds of the outputs of ``node``; None where an input has none."""
    if node.domain == DOMAIN and node.op_type == "Encrypt":
        return float(int_of(node, "low", 0)), float(int_of(node, "high", 1))
    if node.domain == DOMAIN and node.op_type == "TableLookup":
        table = constant_of(node.inputs[1])
        assert table is not None
        return float(table.min()), float(table.max())
    operands = [_operand(v, ranges) for v in node.inputs if v is not None]
    if not operands or operands[0] is None:
        return None
    low, high = operands[0]
    if node.domain == DOMAIN:  # RoundBits
        half = 2.0 ** int_of(node, "lsbs_to_remove", 0) / 2
        return _within(node, low - half, high + half)
    if node.op_type in LAYOUT:
        return low, high
    if node.op_type == "Neg":
        return -high, -low
    if node.op_type == "ReduceSum":
        return _sum_range(node, low, high)
    if node.op_type in LINEAR:
        return _linear_range(node, ranges)
    other = operands[1] if len(operands) > 1 else None
    if other is None:
        return None
    if node.op_type == "Mul":
        products = [a * b for a in (low, high) for b in other]
        return _within(node, min(products), max(products))
    sign = -1 if node.op_type == "Sub" else 1
    ends = [sign * e for e in other]
    return _within(node, low + min(ends), high + max(ends))


def _operand(value: ir.Value, ranges: dict[ir.Value, Interval]) -> Interval | None:
    array = constant_of(value)
    if array is not None:
        return (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    return ranges.get(value)


def _within(node: ir.Node, low: float, high: float) -> Interval:
    largest = max(abs(low), abs(high))
    if largest >= EXACT:
        raise LimitError(
            "a value of the encrypted part may be too large to be exact",
            node=node.name or "",
            op=node.op_type,
            found=f"absolute values up to {largest:.0f} ({np.log2(largest):.1f} bits)",
            allowed="below 2^24",
            do="use fewer bits for the weights or activations of this layer",
        )
    return low, high


def _sum_range(node: ir.Node, low: float, high: float) -> Interval | None:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return None
    sizes = [[d for d in v.shape.dims if isinstance(d, int)] for v in (source, result) if v.shape is not None]
    count = float(np.prod(sizes[0])) / max(float(np.prod(sizes[1])), 1.0)
    return _within(node, count * low, count * high)


def _linear_range(node: ir.Node, ranges: dict[ir.Value, Interval]) -> Interval | None:
    on_right = constant_of(node.inputs[1]) is not None
    weight = constant_of(node.inputs[1] if on_right else node.inputs[0])
    data = node.inputs[0] if on_right else node.inputs[1]
    known = ranges.get(data) if data is not None else None
    if weight is None or known is None:
        return None
    exact = weight.astype(np.float64)
    if node.op_type in ("Gemm", "Conv"):
        axes = tuple(range(1, exact.ndim))
    else:
        axes = (-1 if not on_right else -2 if exact.ndim > 1 else 0,)
    low, high = known
    if node.op_type == "Conv":
        low, high = min(low, 0.0), max(high, 0.0)  # padding adds zeros
    positive, negative = np.clip(exact, 0, None).sum(axis=axes), np.clip(exact, None, 0).sum(axis=axes)
    lowest, highest = positive * low + negative * high, positive * high + negative * low
    # Sums on the way may be larger than their result.
    largest = float(((positive - negative) * max(abs(low), abs(high))).max(initial=0))
    _within(node, -largest, largest)
    return float(lowest.min(initial=0)), float(highest.max(initial=0))
