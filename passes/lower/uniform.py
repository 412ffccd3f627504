"""One scale for the elements of a tensor, where an operator mixes them that have several."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.growth import together
from ...analysis.regions.linear import linear_of
from ...analysis.regions.regions import JOINS, POOLS, PRODUCTS
from ...ir import intervals
from ...ir.graph import LAYOUT, MAXIMA, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.movement import may_move
from ..framework.base import Context
from .codes import weight_of
from .common_scale import CommonScales
from .multiples import multiples
from .views import MAX_MULTIPLIER_ERROR, View

TYPICAL_OPERAND = 16
"""The other operand of a product, as far as anybody knows before it is lowered."""


class Uniform:
    """Gives views one scale: elements are multiplied by whole numbers, by which their scales differ (nearly).

    Args:
        edit: Makes the products.
        common_scales: Knows how large integers are.
        context: Is told where whole numbers are not near.
    """

    def __init__(self, edit: IntegerEditor, common_scales: CommonScales, context: Context) -> None:
        self._edit = edit
        self._common_scales = common_scales
        self._context = context
        self._amplification = Amplification()

    def __call__(self, node: ir.Node, view: View) -> View:
        """The view that ``node`` reads, with one scale."""
        if view.scale.size == 1 or not np.any(view.scale):
            return View(view.integers, view.scale.reshape(-1)[:1].reshape([1] * view.scale.ndim), view.offset)
        most = self._amplification.room(node) / self._common_scales.largest(view)
        found = multiples(view.scale, self._common_scales.levels(view.integers), most)
        if found.error > MAX_MULTIPLIER_ERROR:
            self._context.notes.append(
                f"{node.name} ({node.op_type}) reads elements whose scales have no small common multiple;"
                f" multipliers are within {found.error:.2%}"
            )
        scaled = self._edit.scaled(view.integers, found.factor, f"{node.name}_common_scale")
        return View(scaled, np.full([1] * found.factor.ndim, found.unit), view.offset)


class Amplification:
    """How many times larger than an operator's operand the sums behind it can be, up to the next tables."""

    def __init__(self) -> None:
        self._known: dict[ir.Node, float] = {}

    def room(self, node: ir.Node) -> float:
        """The largest operand of ``node`` at which float32 holds all sums."""
        return intervals.LARGEST_FLOAT32_INTEGER / self._of(node)

    def _of(self, node: ir.Node) -> float:
        if node not in self._known:
            made = _made(node)
            readers = {n for o in node.outputs for n in o.consumers()} if made else set()
            self._known[node] = max(made, 1.0) * max((self._of(n) for n in readers), default=1.0)
        return self._known[node]


def _made(node: ir.Node) -> float:
    """The factor of one operator; 0 for what ends in a table, or leaves the encrypted part."""
    if (linear := linear_of(node)) is not None:
        codes = weight_of(linear)[0]
        rows = (codes.T if node.op_type == "MatMul" else codes).reshape(linear.channels, -1)
        return max(1.0, float(np.abs(rows).sum(axis=1).max()))
    read = variable_inputs(node)
    if node.op_type in POOLS and read:
        return together(node, read[0])
    if node.op_type in PRODUCTS and len(read) == len(node.inputs):
        shape = list(read[0].shape or [1])
        inner = shape[-1] if node.op_type == "MatMul" and isinstance(shape[-1], int) else 1
        return float(TYPICAL_OPERAND * inner)
    if node.op_type in JOINS:
        return float(len(read))
    return float(node.op_type in LAYOUT | MAXIMA or may_move(node))
