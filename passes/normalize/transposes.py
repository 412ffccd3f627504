"""Transposes between layouts (NHWC and NCHW) meet and cancel, so that constants reach the weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.elementwise import ElementwiseProbe
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, ints_of, only_consumer, rank_of, variable_inputs
from ...ir.movement import CANDIDATES

_PAIRS = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})


def merge(edit: GraphEditor, node: ir.Node) -> bool:
    """A Transpose of a Transpose is one."""
    order, before = _order(node), _transpose_of(node.inputs[0] if node.inputs else None)
    inner = _order(before)
    if order is None or before is None or inner is None:
        return False
    edit.substitute(node, "Transpose", [before.inputs[0]], {"perm": [inner[i] for i in order]})
    return True


def sink(edit: GraphEditor, node: ir.Node) -> bool:
    """A Transpose moves behind what works element by element, its constants with it."""
    moves = node.op_type in CANDIDATES - {"Where"}
    if node.domain or moves or len(node.outputs) != 1 or "axis" in node.attributes:
        return False
    variable = variable_inputs(node)
    movers = [_transpose_of(v) for v in variable]
    orders = {tuple(_order(m) or ()) for m in movers}
    if not variable or len(orders) > 1 or not (order := list(next(iter(orders)))):
        return False
    if any(m is None or m.inputs[0] is None or m.inputs[0].producer() is None for m in movers):
        return False
    if any(only_consumer(v) is not node for v in variable):
        return False
    if rank_of(node.outputs[0]) != len(order):
        return False
    if len(variable) > 1 and (
        node.op_type not in _PAIRS or any(v.shape != variable[0].shape for v in variable)
    ):
        return False
    arrays = [constant_of(v) for v in node.inputs]
    if any(a is not None and a.ndim > len(order) for a in arrays):
        return False
    if len(variable) == 1 and not _is_elementwise(edit, node, variable[0]):
        return False
    inverse = list(np.argsort(order))
    inputs: list[ir.Value | None] = []
    for value, array in zip(node.inputs, arrays, strict=True):
        producer = value.producer() if value is not None else None
        if array is not None and array.size > 1:
            full = array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(inverse)
            inputs.append(edit.constant(f"{value.name}_ordered", np.ascontiguousarray(full)))  # type: ignore[union-attr]
        elif value in variable and producer is not None:
            inputs.append(producer.inputs[0])
        else:
            inputs.append(value)
    attributes = {k: a.value for k, a in node.attributes.items()}
    moved = edit.at(node).add(node.op_type, inputs, str(node.name), attributes)
    first = movers[0]
    made = moved.producer()
    assert made is not None
    assert first is not None
    made.name, node.name = node.name, f"{node.name}/{first.name}"
    edit.substitute(node, "Transpose", [moved], {"perm": order})
    return True


def _is_elementwise(edit: GraphEditor, node: ir.Node, variable: ir.Value) -> bool:
    """Whether a node works element by element in any order of axes.

    Along an axis of one element sums and the like seem to, too: here no axis has one.
    """
    sizes = [2 if d == 1 else d for d in variable.shape or []]
    stand_in = ir.Value(name=variable.name, shape=ir.Shape(sizes), type=variable.type)
    inputs = [stand_in if v is variable else v for v in node.inputs]
    copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=1)
    try:
        return ElementwiseProbe(edit.graph.opset_imports.get("", 21))(copy, [stand_in])
    finally:
        for index in range(len(inputs)):
            copy.replace_input_with(index, None)


def _transpose_of(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "Transpose" and not node.domain else None


def _order(node: ir.Node | None) -> list[int] | None:
    if node is None or node.op_type != "Transpose" or node.domain:
        return None
    order = ints_of(node, "perm")
    rank = rank_of(node.outputs[0])
    return order if order is not None else (list(range(rank))[::-1] if rank else None)
