"""Bounds of the values of the encrypted region, and the proof that float32 holds them exactly."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .errors import LimitError
from .graph import LINEAR, MAXIMA, constant_of, extremes_of, variable_inputs
from .interval_arithmetic import Bounds, added, multiplied, negated, subtracted, weighted
from .movement import FILLS, ZEROS, may_move
from .ops import Encrypt, PairLookup, RoundBits, TableLookup

LARGEST_FLOAT32_INTEGER = 2**24
"""float32 holds every integer below this exactly."""


def interval_of(node: ir.Node, ranges: dict[ir.Value, Bounds]) -> Bounds | None:
    """Bounds of the outputs of ``node``; None where an input has none."""
    if (encrypt := Encrypt.match(node)) is not None:
        return float(encrypt.low), float(encrypt.high)
    if (lookup := TableLookup.match(node) or PairLookup.match(node)) is not None:
        return lookup.entry_range
    if node.domain == "" and (may_move(node) or node.op_type in MAXIMA):
        return _union(node, ranges)
    operands = [_operand(v, ranges) for v in node.inputs if v is not None]
    if not operands or operands[0] is None:
        return None
    low, high = operands[0]
    if (rounding := RoundBits.match(node)) is not None:
        half = rounding.unit / 2
        return _within(node, low - half, high + half)
    if node.op_type == "Neg":
        return negated((low, high))
    if node.op_type == "ReduceSum":
        return _sum_range(node, low, high)
    if node.op_type in LINEAR:
        return _linear_range(node, ranges)
    other = operands[1] if len(operands) > 1 else None
    if other is None:
        return None
    combined = {"Mul": multiplied, "Sub": subtracted}.get(node.op_type, added)
    return _within(node, *combined((low, high), other))


def _union(node: ir.Node, ranges: dict[ir.Value, Bounds]) -> Bounds | None:
    """Bounds of what is copied, chosen or filled in: every constant counts as if it were copied."""
    found = [ranges.get(v) for v in variable_inputs(node)]
    if node.op_type in FILLS | MAXIMA:
        arrays = [c for v in node.inputs if (c := constant_of(v)) is not None and c.dtype == np.float32]
        found += [(float(c.min()), float(c.max())) for c in arrays if c.size]
    if node.op_type in ZEROS:
        found.append((0.0, 0.0))
    known = [f for f in found if f is not None]
    if not known or len(known) < len(found):
        return None
    return min(f[0] for f in known), max(f[1] for f in known)


def _operand(value: ir.Value, ranges: dict[ir.Value, Bounds]) -> Bounds | None:
    return extremes_of(value) or ranges.get(value)


def _within(node: ir.Node, low: float, high: float) -> Bounds:
    largest = max(abs(low), abs(high))
    if largest >= LARGEST_FLOAT32_INTEGER:
        raise LimitError(
            "a value of the encrypted part may be too large to be exact",
            node=node.name or "",
            op=node.op_type,
            found=f"absolute values up to {largest:.0f} ({np.log2(largest):.1f} bits)",
            allowed="below 2^24",
            do="use fewer bits for the weights or activations of this layer",
        )
    return float(low), float(high)


def _sum_range(node: ir.Node, low: float, high: float) -> Bounds | None:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return None
    sizes = [[d for d in v.shape.dims if isinstance(d, int)] for v in (source, result) if v.shape is not None]
    count = float(np.prod(sizes[0])) / max(float(np.prod(sizes[1])), 1.0)
    return _within(node, count * low, count * high)


def _product_range(node: ir.Node, ranges: dict[ir.Value, Bounds]) -> Bounds | None:
    """Bounds of a matrix product of two encrypted tensors."""
    first, second = (ranges.get(v) for v in node.inputs if v is not None)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    length = shape[-1] if shape is not None and len(shape) else None
    if first is None or second is None or not isinstance(length, int):
        return None
    least, most = multiplied(first, second)
    largest = length * max(abs(least), abs(most))
    _within(node, -largest, largest)
    return length * least, length * most


def _linear_range(node: ir.Node, ranges: dict[ir.Value, Bounds]) -> Bounds | None:
    if len(variable_inputs(node)) > 1 or node.inputs[0] is node.inputs[1]:
        return _product_range(node, ranges)
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
    lowest, highest = weighted((low, high), lambda x: positive * x, lambda x: negative * x)
    # Sums on the way may be larger than their result.
    largest = float(((positive - negative) * max(abs(low), abs(high))).max(initial=0))
    _within(node, -largest, largest)
    return float(lowest.min(initial=0)), float(highest.max(initial=0))
