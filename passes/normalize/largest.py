"""Which element is the largest, inside the encrypted part: comparisons of all pairs, by sums and tables.

As for Softmax, one linear layer makes all the differences; that takes a table for each pair, so it is done up
to as many elements as there.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import int_of, is_float
from ..framework.rewriting import Refusal
from .parts import Parts
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx
from .softmax import MAX_SOFTMAX_ELEMENTS, OVER_SAMPLES, TOO_MANY, Chosen

_EQUAL_DISTANCE = 1e-6
"""Difference of two elements below which they count as equal."""


class SplitHardmax(Rule[Chosen]):
    """Hardmax is 1 where an element exceeds all before it, and is no less than all behind it."""

    name: ClassVar[str] = "split-hardmax"

    def match(self, node: ir.Node) -> Chosen | Refusal | None:
        """The node and its axis."""
        return _along(node, -1) if is_onnx(node, "Hardmax") else None

    def apply(self, match: Chosen) -> None:
        """Write the comparisons."""
        hot = _winner(Parts(self.edit, match.node, np.dtype(np.float32)), match, smallest=False)
        self.edit.substitute(match.node, "Transpose", [hot], {"perm": match.back})


class SplitPlaceOfLargest(Rule[Chosen]):
    """ArgMax and ArgMin are Hardmax times the numbers of the places."""

    name: ClassVar[str] = "split-place-of-largest"

    def match(self, node: ir.Node) -> Chosen | Refusal | None:
        """The node and its axis."""
        return _along(node, 0) if is_onnx(node, "ArgMax", "ArgMin") else None

    def apply(self, match: Chosen) -> None:
        """Write the comparisons and the product."""
        node, parts = match.node, Parts(self.edit, match.node, np.dtype(np.float32))
        last = int_of(node, "select_last_index", 0) == 1
        hot = _winner(parts, match, smallest=node.op_type == "ArgMin", last=last)
        numbers = parts.array(np.arange(match.size)[:, None])
        place = parts.add("MatMul", hot, numbers, part="place")
        value = parts.add("Transpose", place, perm=match.back, part="in_order")
        if not int_of(node, "keepdims", 1):
            value = parts.add("Squeeze", value, parts.indices([match.axis]), part="squeezed")
        # What comes behind a Cast to whole numbers must not be cut off.
        rounded = parts.add("Round", value, part="rounded")
        self.edit.substitute(node, "Cast", [rounded], {"to": int(ir.DataType.INT64)})


def _along(node: ir.Node, default: int) -> Chosen | Refusal:
    """The node with its axis, which is ``default`` where none is written."""
    sample = shapes.static_of_sample(node.inputs[0])
    if not is_float(node.inputs[0]):
        return NOT_FLOAT
    if sample is None:
        return NOT_STATIC
    axis = int_of(node, "axis", default) % (len(sample) + 1)
    if axis == 0:
        return OVER_SAMPLES
    return Chosen(node, axis, sample) if 1 < sample[axis - 1] <= MAX_SOFTMAX_ELEMENTS else TOO_MANY


def _winner(parts: Parts, chosen: Chosen, smallest: bool, last: bool = False) -> ir.Value:
    """A one where the largest element is, its axis moved to the end."""
    size, x = chosen.size, chosen.axis_last(parts)
    first, second = (i.ravel() for i in np.indices((size, size)))
    keep = first != second
    first, second = first[keep], second[keep]
    pairs = np.zeros((size, len(first)))
    pairs[first, np.arange(len(first))] = -1.0 if smallest else 1.0
    pairs[second, np.arange(len(first))] += 1.0 if smallest else -1.0
    differences = parts.add("MatMul", x, parts.array(pairs), part="differences")
    # Of equal elements one wins: against those that it stands in front of no more than 0 is needed, give or
    # take what a fitted offset may be off.
    strict = (first < second) if last else (first > second)
    needed = parts.array(np.where(strict, _EQUAL_DISTANCE, -_EQUAL_DISTANCE))
    wins = parts.add(
        "Cast", parts.add("GreaterOrEqual", differences, needed, part="wins"), to=int(ir.DataType.FLOAT)
    )
    split = parts.add("Reshape", wins, parts.indices([-1, *chosen.moved, size - 1]), part="pairs")
    total = parts.add("ReduceSum", split, parts.indices([-1]), part="sum", keepdims=0)
    all_won = parts.add("GreaterOrEqual", total, parts.number(size - 1.5), part="all_won")
    return parts.add("Cast", all_won, part="one_hot", to=int(ir.DataType.FLOAT))
