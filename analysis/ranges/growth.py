"""How many bits a sum of activations needs more than they do: tables of several elements have few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

MAX_GROWTH_BITS = 1.0
"""Bits that a sum may have more than its summands where a product or a maximum reads it as it is."""


class Growth:
    """Widths of sums and means of activations, in relation to the activations that they are made of."""

    def __init__(self) -> None:
        # Of each tensor: how many steps one step of its summands is, and how many summands it has.
        self._known: dict[ir.Value, tuple[float, float]] = {}

    def is_wide(self, value: ir.Value) -> bool:
        """Whether a table of several elements would be much wider for reading ``value`` as it is."""
        return math.log2(math.prod(self._of(value))) > MAX_GROWTH_BITS

    def forget(self, value: ir.Value) -> None:
        """``value`` is quantized itself."""
        self._known.pop(value, None)

    def moved(self, output: ir.Value, values: Sequence[ir.Value]) -> None:
        """``output`` is made of elements of ``values``."""
        steps, summands = zip(*map(self._of, values), strict=True)
        self._known[output] = max(steps), max(summands)

    def added(self, output: ir.Value, values: Sequence[ir.Value]) -> None:
        """``output`` is a sum, or a difference, of ``values``: the finest step among them is its own."""
        steps, summands = zip(*map(self._of, values), strict=True)
        self._known[output] = max(steps), sum(summands)

    def pooled(self, node: ir.Node, value: ir.Value) -> None:
        """``node`` adds up elements of ``value``, or takes their mean; or it only moves them."""
        steps, summands = self._of(value)
        count = together(node, value)
        sums = node.op_type == "ReduceSum"
        self._known[node.outputs[0]] = (steps, summands * count) if sums else (steps * count, summands)

    def _of(self, value: ir.Value) -> tuple[float, float]:
        return self._known.get(value, (1.0, 1.0))


def together(node: ir.Node, value: ir.Value) -> float:
    """Elements that a pooling takes together."""
    if node.op_type == "AveragePool":
        return float(math.prod(node.attributes.get_ints("kernel_shape", [1])))
    before, after = (
        math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int)) for v in (value, node.outputs[0])
    )
    return max(1.0, before / max(1, after))
