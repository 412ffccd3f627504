"""Norms and sums, inside the encrypted part, in parts that circuits are made of.

Sums over axes are linear; squares, roots and logarithms work element by element. The client's part keeps the
operators as they are: there they cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import int_of, ints_of, is_float, rank_of, variable_inputs
from ..framework.rewriting import Refusal
from .parts import Parts
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx

_REDUCTIONS: dict[str, tuple[str | None, str | None]] = {
    "ReduceL1": ("Abs", None),
    "ReduceL2": ("square", "Sqrt"),
    "ReduceSumSquare": ("square", None),
    "ReduceLogSum": (None, "Log"),
    "ReduceLogSumExp": ("Exp", "Log"),
}
"""What is done to each element before the sum, and to the sum."""


class SplitReduction(Rule[ir.Node]):
    """ReduceL1, ReduceL2 and the like are a ReduceSum between functions."""

    name: ClassVar[str] = "split-reduction"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(node, *_REDUCTIONS):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        return NOT_STATIC if rank_of(node.inputs[0]) is None else node

    def apply(self, match: ir.Node) -> None:
        """Write the functions and the sum."""
        node, parts, x = match, Parts(self.edit, match), match.inputs[0]
        before, after = _REDUCTIONS[node.op_type]
        inner = parts.square(x) if before == "square" else parts.add(before, x) if before else x
        attributes = {
            k: a.value for k, a in node.attributes.items() if k in ("keepdims", "noop_with_empty_axes")
        }
        inputs = [inner, *node.inputs[1:]]
        if after is None:
            self.edit.substitute(node, "ReduceSum", inputs, attributes)
        else:
            total = self.edit.at(node).add("ReduceSum", inputs, f"{parts.name}/sum", attributes)
            self.edit.substitute(node, after, [total])


class SplitNorm(Rule[tuple[ir.Node, int]]):
    """LpNormalization and GlobalLpPool are roots of sums of powers."""

    name: ClassVar[str] = "split-norm"

    def match(self, node: ir.Node) -> tuple[ir.Node, int] | Refusal | None:
        """The node and its power."""
        if not is_onnx(node, "LpNormalization", "GlobalLpPool"):
            return None
        return _power(node)

    def apply(self, match: tuple[ir.Node, int]) -> None:
        """Write the sum, its root and the quotient."""
        (node, p), parts, x = match, Parts(self.edit, match[0]), match[0].inputs[0]
        if node.op_type == "LpNormalization":
            where = parts.indices([int_of(node, "axis", -1)])
            total = parts.add("ReduceSum", parts.power(x, p), where, part="sum")
            self.edit.substitute(node, "Mul", [x, parts.add("Reciprocal", parts.root(total, p))])
            return
        rank = rank_of(x)
        assert rank is not None
        where = parts.indices(range(2, rank))
        total = parts.add("ReduceSum", parts.power(x, p), where, part="sum", keepdims=1)
        self.edit.substitute(node, "Identity", [parts.root(total, p)])


def _power(node: ir.Node) -> tuple[ir.Node, int] | Refusal:
    """The node and its power."""
    p = int_of(node, "p", 2)
    if not is_float(node.outputs[0]):
        return NOT_FLOAT
    if rank_of(node.inputs[0]) is None:
        return NOT_STATIC
    return (node, p) if p >= 1 else Refusal("its power is no norm's")


@dataclass(frozen=True)
class LpWindow:
    """An LpPool: its power, the elements of its window, and the attributes of an average over that."""

    node: ir.Node
    p: int
    elements: int
    attributes: dict[str, Any]


class SplitLpPool(Rule[LpWindow]):
    """LpPool is the root of a sum of powers: an average times the size of the window."""

    name: ClassVar[str] = "split-lp-pool"

    def match(self, node: ir.Node) -> LpWindow | Refusal | None:
        """The window."""
        if not is_onnx(node, "LpPool"):
            return None
        found, kernel = _power(node), ints_of(node, "kernel_shape")
        if isinstance(found, Refusal):
            return found
        kept = {k: a.value for k, a in node.attributes.items() if k not in ("p", "ceil_mode")}
        if not kernel:
            return NOT_STATIC
        if int_of(node, "ceil_mode", 0):
            before, after = (shapes.static_of_sample(v) for v in (node.inputs[0], node.outputs[0]))
            if before is None or after is None or kept.get("auto_pad", "NOTSET") != "NOTSET":
                return NOT_STATIC
            rank = len(kernel)
            strides, dilations = (ints_of(node, k) or [1] * rank for k in ("strides", "dilations"))
            pads = ints_of(node, "pads") or [0] * 2 * rank
            for i in range(rank):  # windows that hang over the end see zeros
                reach = (after[1 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
                pads[rank + i] = max(pads[rank + i], reach - before[1 + i] - pads[i])
            kept["pads"] = pads
        return LpWindow(node, found[1], int(np.prod(kernel)), kept | {"count_include_pad": 1})

    def apply(self, match: LpWindow) -> None:
        """Write the average, the product and the root."""
        node, p, parts = match.node, match.p, Parts(self.edit, match.node)
        powers = parts.power(node.inputs[0], p)
        mean = self.edit.at(node).add("AveragePool", [powers], f"{parts.name}/mean", match.attributes)
        total = parts.add("Mul", mean, parts.number(float(match.elements)), part="sum")
        self.edit.substitute(node, "Identity", [parts.root(total, p)])


class DivisionToProduct(Rule[ir.Node]):
    """A quotient of two encrypted tensors is a product with a reciprocal, which is a table."""

    name: ClassVar[str] = "division-to-product"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(node, "Div"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        return node if len(variable_inputs(node)) > 1 else Refusal("an operand is constant, or both are one")

    def apply(self, match: ir.Node) -> None:
        """Write the product."""
        parts = Parts(self.edit, match)
        self.edit.substitute(match, "Mul", [match.inputs[0], parts.add("Reciprocal", match.inputs[1])])


class SumOfMany(Rule[ir.Node]):
    """Sum and Mean of several tensors are additions (everywhere: they are linear)."""

    name: ClassVar[str] = "sum-of-many"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(node, "Sum", "Mean"):
            return None
        return node if is_float(node.outputs[0]) else NOT_FLOAT

    def apply(self, match: ir.Node) -> None:
        """Write the additions."""
        node, parts = match, Parts(self.edit, match)
        inputs = [v for v in node.inputs if v is not None]
        total = inputs[0]
        for number, value in enumerate(inputs[1:-1]):
            total = parts.add("Add", total, value, part=f"sum_{number}")
        if node.op_type == "Sum":
            if len(inputs) == 1:
                self.edit.substitute(node, "Identity", [total])
            else:
                self.edit.substitute(node, "Add", [total, inputs[-1]])
            return
        if len(inputs) > 1:
            total = parts.add("Add", total, inputs[-1], part="sum")
        self.edit.substitute(node, "Mul", [total, parts.number(1.0 / len(inputs))])
