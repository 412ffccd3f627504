"""Conditions and whole numbers inside the encrypted part are floats: circuits have no other kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, variable_inputs


def read_as_numbers(edit: GraphEditor, node: ir.Node) -> bool:
    """A condition or whole number that meets another tensor, or is the client's, is a float on its way.

    So it can be quantized, and be rounded to a whole number again behind that.
    """
    return _as_numbers(edit, node, _is_whole)


def conditions_as_numbers(edit: GraphEditor, node: ir.Node) -> bool:
    """The same for conditions alone: in models that another tool has quantized, whole numbers are codes."""
    return _as_numbers(edit, node, lambda value: value.dtype is ir.DataType.BOOL)


def _as_numbers(edit: GraphEditor, node: ir.Node, wanted: Callable[[ir.Value], bool]) -> bool:
    if node.domain or node.op_type == "Cast":
        return False
    several = len(variable_inputs(node)) > 1
    modified = False
    for index, value in enumerate(node.inputs):
        if value is None or constant_of(value) is not None or not wanted(value):
            continue
        if not several and not value.is_graph_input():
            continue
        source = value.producer()
        given = source.inputs[0] if source is not None and source.op_type == "Cast" else None
        if given is not None and given.dtype is ir.DataType.FLOAT:
            continue
        back = _same_again(value) or _number_and_back(edit, node, value, f"{node.name}/{index}")
        node.replace_input_with(index, back)
        modified = True
    return modified


def returned_as_number(edit: GraphEditor, node: ir.Node) -> bool:
    """A condition or whole number that is returned is one again on the client: a float is decrypted."""
    result = node.outputs[0] if node.outputs else None
    if result is None or node.domain or node.op_type == "Cast" or len(node.outputs) != 1:
        return False
    if not result.is_graph_output() or not _is_whole(result) or not variable_inputs(node):
        return False
    name, current = str(result.name), result
    edit.behind(result)
    for part, op, to in (
        ("number", "Cast", ir.DataType.FLOAT),
        ("rounded", "Round", None),
        ("whole", "Cast", result.dtype),
    ):
        if op == "Round" and result.dtype is ir.DataType.BOOL:
            continue
        attributes = {} if to is None else {"to": int(to)}
        current = edit.add(op, [current], f"{node.name}/{part}", attributes)
        current.type, current.shape = ir.TensorType(to or ir.DataType.FLOAT), result.shape
        edit.rename(current, f"{name}_{part}")
    edit.graph.outputs[list(edit.graph.outputs).index(result)] = current
    result.name, current.name = f"{name}_computed", name
    return True


_ARITHMETIC = frozenset(
    {"Abs", "Add", "Max", "Min", "Mul", "Neg", "ReduceMax", "ReduceMin", "ReduceSum", "Sub"}
)
"""Operators that give the same whole numbers in floats."""


def arithmetic_in_floats(edit: GraphEditor, node: ir.Node) -> bool:
    """Sums, products and maxima of whole numbers are those of floats: the circuit has no other kind."""
    if node.domain or node.op_type not in _ARITHMETIC or not _is_whole(node.outputs[0]):
        return False
    result, inputs = node.outputs[0], list(node.inputs)
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype is not result.dtype:
            continue
        if (array := constant_of(value)) is not None:
            if not (index and node.op_type.startswith("Reduce")):  # its axes
                inputs[index] = edit.constant(f"{value.name}_float", array.astype(np.float32))
            continue
        number = edit.at(node).add(
            "Cast", [value], f"{node.name}/{index}/float", {"to": int(ir.DataType.FLOAT)}
        )
        number.dtype, number.shape = ir.DataType.FLOAT, value.shape
        inputs[index] = number
    attributes = {k: a.value for k, a in node.attributes.items()}
    made = edit.at(node).add(node.op_type, inputs, f"{node.name}/floats", attributes)
    made.dtype, made.shape = ir.DataType.FLOAT, result.shape
    whole = edit.at(node).add("Round", [made], f"{node.name}/rounded", like=made)
    assert result.dtype is not None
    edit.substitute(node, "Cast", [whole], {"to": int(result.dtype)})
    return True


def _is_whole(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype is ir.DataType.BOOL or value.dtype.is_integer())


def _number_and_back(edit: GraphEditor, node: ir.Node, value: ir.Value, name: str) -> ir.Value:
    assert value.dtype is not None
    number = edit.at(node).add("Cast", [value], f"{name}/number", {"to": int(ir.DataType.FLOAT)})
    number.dtype, number.shape = ir.DataType.FLOAT, value.shape
    if value.dtype is not ir.DataType.BOOL:  # a Cast to whole numbers cuts off
        number = edit.at(node).add("Round", [number], f"{name}/rounded", like=number)
    back = edit.at(node).add("Cast", [number], f"{name}/whole", {"to": int(value.dtype)})
    back.dtype, back.shape = value.dtype, value.shape
    return back


def _same_again(value: ir.Value) -> ir.Value | None:
    """The value that was made of a number made of this before, so that it is quantized once."""
    pending = [o for n in value.consumers() if n.op_type == "Cast" for o in n.outputs]
    while pending:
        number = pending.pop()
        if number.dtype is not ir.DataType.FLOAT:
            continue
        for reader in number.consumers():
            if reader.op_type == "Cast" and reader.outputs[0].dtype is value.dtype:
                return reader.outputs[0]
            pending += reader.outputs if reader.op_type == "Round" else []
    return None
