"""Products of two encrypted tensors as sums of lookups."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir.bits import bits_of
from ..cost.bootstrap import bootstrap_complexity
from .editing import ExpansionEditor
from .pairs import packed


def expand(node: ir.Node, edit: ExpansionEditor) -> ir.Value:
    """What stands for a Mul or MatMul of two encrypted tensors."""
    x, y = (v for v in node.inputs if v is not None)
    if node.op_type == "Mul":
        return multiply(node, x, y, edit)
    (*_, n, k), (*_, m) = edit.shape(x), edit.shape(y)
    outer = edit.to_shape(x, [*edit.shape(x)[1:-2], n, k, 1], f"{node.name}_left")
    inner = edit.to_shape(y, [*edit.shape(y)[1:-2], 1, k, m], f"{node.name}_right")
    if k == 1:
        return edit.reshape(multiply(node, outer, inner, edit), node.outputs[0], f"{node.name}_shape")
    return _sum_of_products(node, outer, inner, edit)


def multiply(node: ir.Node, x: ir.Value, y: ir.Value, edit: ExpansionEditor) -> ir.Value:
    """``x * y``, element by element, the cheapest way."""
    way = _cheapest(x, y, edit)
    if way == "packed":
        (a, b), (c, d) = edit.bounds(x), edit.bounds(y)
        table = np.multiply.outer(np.arange(a, b + 1), np.arange(c, d + 1))
        return packed(node, x, y, table[None], (a, c), 1, edit)
    if way == "quarters":
        total = edit.broadcast("Add", [x, y], f"{node.name}_total")
        difference = edit.broadcast("Sub", [x, y], f"{node.name}_difference")
        squares = [_table(v, lambda u: u * u // 4, f"{node.name}_quarter", edit) for v in (total, difference)]
        return edit.broadcast("Sub", squares, f"{node.name}_product")
    total, singles = _pairs_of(node, x, y, edit)
    return edit.broadcast(
        "Sub",
        [edit.broadcast("Sub", [total, singles[0]], f"{node.name}_part"), singles[1]],
        f"{node.name}_product",
    )


def _sum_of_products(node: ir.Node, x: ir.Value, y: ir.Value, edit: ExpansionEditor) -> ir.Value:
    """The sum of ``x * y`` over the axis before the last."""
    axis = len(edit.shape(x)) - 2
    if _cheapest(x, y, edit) != "pairs":
        product = multiply(node, x, y, edit)
        return edit.sum_over(product, axis, f"{node.name}_sum")
    total, singles = _pairs_of(node, x, y, edit)
    result, left, right = (edit.sum_over(v, axis, f"{node.name}_sum") for v in (total, *singles))
    rest = edit.broadcast("Sub", [result, left], f"{node.name}_part")
    return edit.broadcast("Sub", [rest, right], f"{node.name}_product")


def _pairs_of(
    node: ir.Node, x: ir.Value, y: ir.Value, edit: ExpansionEditor
) -> tuple[ir.Value, list[ir.Value]]:
    """The numbers of pairs among x + y, x and y things: ``C(x + y) - C(x) - C(y) = x * y``."""
    total = edit.broadcast("Add", [x, y], f"{node.name}_total")
    of_total, *singles = (
        _table(v, lambda u: u * (u - 1) // 2, f"{node.name}_pairs", edit) for v in (total, x, y)
    )
    return of_total, singles


def _table(value: ir.Value, function: object, name: str, edit: ExpansionEditor) -> ir.Value:
    low, high = edit.bounds(value)
    assert callable(function)
    return edit.lookup(value, np.asarray([[function(u) for u in range(low, high + 1)]]), low, name)


def _cheapest(x: ir.Value, y: ir.Value, edit: ExpansionEditor) -> str:
    """Of one table of all pairs, quarters of squares of sum and difference, and numbers of pairs."""
    (a, b), (c, d) = edit.bounds(x), edit.bounds(y)
    first, second, both = b - a + 1, d - c + 1, b - a + d - c + 1
    shapes = edit.shape(x), edit.shape(y)
    count, singles = math.prod(np.broadcast_shapes(*shapes)), [math.prod(s) for s in shapes]

    def cost(size: int) -> float:
        return bootstrap_complexity(bits_of(0, size - 1))

    costs = {
        "packed": count * cost(first * second),
        "quarters": 2 * count * cost(both),
        "pairs": count * cost(both) + singles[0] * cost(first) + singles[1] * cost(second),
    }
    return min(costs, key=lambda k: costs[k])
