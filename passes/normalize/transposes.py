"""Transposes between layouts (NHWC and NCHW) meet and cancel, so that constants reach the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...analysis.regions.elementwise import ElementwiseProbe
from ...ir.graph import LINEAR, constant_of, ints_of, only_consumer, rank_of, variable_inputs
from ...ir.movement import CANDIDATES
from ..framework.rewriting import Refusal
from .rule import Rule, is_onnx

_PAIRS = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})
_BY_CHANNEL = LINEAR | {"ConvTranspose", "BatchNormalization", "InstanceNormalization"}
"""Operators whose constants lie along axis 1, and are never stretched over the tensor."""


class MergeTransposes(Rule[tuple[ir.Node, ir.Node, list[int]]]):
    """A Transpose of a Transpose is one."""

    name: ClassVar[str] = "merge-transposes"

    def match(self, node: ir.Node) -> tuple[ir.Node, ir.Node, list[int]] | Refusal | None:
        """The second, the first and the order of both."""
        before = _transpose_of(node.inputs[0] if node.inputs else None)
        if not is_onnx(node, "Transpose") or before is None:
            return None
        order, inner = _order(node), _order(before)
        if order is None or inner is None:
            return Refusal("the order of axes is not known")
        return node, before, [inner[i] for i in order]

    def apply(self, match: tuple[ir.Node, ir.Node, list[int]]) -> None:
        """Let the second do what both do."""
        node, before, order = match
        self.edit.substitute(node, "Transpose", before.inputs[:1], {"perm": order})


@dataclass(frozen=True)
class Sinking:
    """An operator behind Transposes of one order.

    Attributes:
        node: The operator.
        first: One of the Transposes.
        order: Their order.
        arrays: The constants of ``node``, by input.
    """

    node: ir.Node
    first: ir.Node
    order: list[int]
    arrays: list[np.ndarray | None]


class SinkTransposes(Rule[Sinking]):
    """A Transpose moves behind what works element by element, its constants with it."""

    name: ClassVar[str] = "sink-transposes"

    def match(self, node: ir.Node) -> Sinking | Refusal | None:
        """The operator and the order."""
        variable = variable_inputs(node)
        movers = [m for v in variable if (m := _transpose_of(v)) is not None]
        if node.domain or not movers:
            return None
        along_axis = "axis" in node.attributes or node.op_type in _BY_CHANNEL
        if node.op_type in CANDIDATES - {"Where"} or len(node.outputs) != 1 or along_axis:
            return Refusal("it moves elements, or works along an axis")
        orders = {tuple(_order(m) or ()) for m in movers}
        if len(movers) < len(variable) or len(orders) > 1 or not (order := list(next(iter(orders)))):
            return Refusal("not all tensors that it reads are transposed in one known order")
        if any(m.inputs[0] is None or m.inputs[0].producer() is None for m in movers):
            return Refusal("an input of the model is transposed")
        if any(only_consumer(v) is not node for v in variable):
            return Refusal("others read what is transposed, too")
        arrays = [constant_of(v) for v in node.inputs]
        if rank_of(node.outputs[0]) != len(order) or any(
            a is not None and a.ndim > len(order) for a in arrays
        ):
            return Refusal("it changes the rank")
        if len(variable) > 1 and (
            node.op_type not in _PAIRS or any(v.shape != variable[0].shape for v in variable)
        ):
            return Refusal("tensors of different shapes meet")
        if len(variable) == 1 and not _is_elementwise(node, variable[0], self.opset):
            return Refusal("it does not work element by element")
        return Sinking(node, movers[0], order, arrays)

    def apply(self, match: Sinking) -> None:
        """Write the operator on what was transposed, and a Transpose behind it."""
        node, order, inverse = match.node, match.order, list(np.argsort(match.order))
        variable = variable_inputs(node)
        inputs: list[ir.Value | None] = []
        for value, array in zip(node.inputs, match.arrays, strict=True):
            producer = value.producer() if value is not None else None
            if array is not None and array.size > 1:
                full = array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(inverse)
                name = f"{value.name}_ordered"  # type: ignore[union-attr]
                inputs.append(self.edit.constant(name, np.ascontiguousarray(full)))
            elif value in variable and producer is not None:
                inputs.append(producer.inputs[0])
            else:
                inputs.append(value)
        attributes = {k: a.value for k, a in node.attributes.items()}
        moved = self.edit.at(node).add(node.op_type, inputs, str(node.name), attributes)
        made = moved.producer()
        assert made is not None
        made.name, node.name = node.name, f"{node.name}/{match.first.name}"
        self.edit.substitute(node, "Transpose", [moved], {"perm": order})


def _is_elementwise(node: ir.Node, variable: ir.Value, opset: int) -> bool:
    """Whether a node works element by element in any order of axes.

    Along an axis of one element sums and the like seem to, too: here no axis has one.
    """
    sizes = [2 if d == 1 else d for d in variable.shape or []]
    stand_in = ir.Value(name=variable.name, shape=ir.Shape(sizes), type=variable.type)
    inputs = [stand_in if v is variable else v for v in node.inputs]
    copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=1)
    try:
        return ElementwiseProbe(opset)(copy, [stand_in])
    finally:
        for index in range(len(inputs)):
            copy.replace_input_with(index, None)


def _transpose_of(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and is_onnx(node, "Transpose") else None


def _order(node: ir.Node | None) -> list[int] | None:
    if node is None or not is_onnx(node, "Transpose"):
        return None
    order = ints_of(node, "perm")
    rank = rank_of(node.outputs[0])
    return order if order is not None else (list(range(rank))[::-1] if rank else None)
