"""Conditions and whole numbers inside the encrypted part are floats: circuits have no other kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, variable_inputs
from ..framework.rewriting import Refusal
from .rule import Rule

Places = tuple[ir.Node, list[int]]
"""A node, and the numbers of its inputs that become floats on their way."""

_ARITHMETIC = frozenset(
    {"Abs", "Add", "Max", "Min", "Mul", "Neg", "ReduceMax", "ReduceMin", "ReduceSum", "Sub"}
)
"""Operators that give the same whole numbers in floats."""


class ReadAsNumbers(Rule[Places]):
    """A condition or whole number that meets another tensor, or is an input, becomes a float and back.

    So it can be quantized, and be rounded to a whole number again behind that.
    """

    name: ClassVar[str] = "read-as-numbers"

    def match(self, node: ir.Node) -> Places | None:
        """The inputs."""
        return _read_whole(node, _is_whole)

    def apply(self, match: Places) -> None:
        """Write a float and back in front of each."""
        node, indices = match
        for index in indices:
            value = node.inputs[index]
            assert value is not None
            back = _same_again(value) or _number_and_back(self.edit, node, value, f"{node.name}/{index}")
            node.replace_input_with(index, back)


class ConditionsAsNumbers(ReadAsNumbers):
    """The same for conditions alone: in models that another tool has quantized, whole numbers are codes."""

    name: ClassVar[str] = "conditions-as-numbers"

    def match(self, node: ir.Node) -> Places | None:
        """The inputs."""
        return _read_whole(node, lambda value: value.dtype is ir.DataType.BOOL)


def _read_whole(node: ir.Node, wanted: Callable[[ir.Value], bool]) -> Places | None:
    if node.domain or node.op_type == "Cast":
        return None
    several = len(variable_inputs(node)) > 1
    found = []
    for index, value in enumerate(node.inputs):
        if value is None or constant_of(value) is not None or not wanted(value):
            continue
        if not several and not value.is_graph_input():
            continue
        source = value.producer()
        given = source.inputs[0] if source is not None and source.op_type == "Cast" else None
        if given is None or given.dtype is not ir.DataType.FLOAT:
            found.append(index)
    return (node, found) if found else None


class ReturnedAsNumber(Rule[ir.Node]):
    """A condition or whole number that is returned is decrypted as a float, and converted by the client."""

    name: ClassVar[str] = "returned-as-number"

    def match(self, node: ir.Node) -> ir.Node | None:
        """The node that makes it."""
        if node.domain or node.op_type == "Cast" or len(node.outputs) != 1 or not variable_inputs(node):
            return None
        result = node.outputs[0]
        return node if result.is_graph_output() and _is_whole(result) else None

    def apply(self, match: ir.Node) -> None:
        """Write a float and back behind it."""
        node, edit, result = match, self.edit.behind(match.outputs[0]), match.outputs[0]
        name, current = str(result.name), result
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


class ArithmeticInFloats(Rule[ir.Node]):
    """Sums, products and maxima of whole numbers are those of floats: the circuit has no other kind."""

    name: ClassVar[str] = "arithmetic-in-floats"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if node.domain or node.op_type not in _ARITHMETIC:
            return None
        return node if _is_whole(node.outputs[0]) else Refusal("its result is no whole number")

    def apply(self, match: ir.Node) -> None:
        """Write it on floats, and round its result."""
        node, edit, result, inputs = match, self.edit.at(match), match.outputs[0], list(match.inputs)
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype is not result.dtype:
                continue
            if (array := constant_of(value)) is not None:
                if not (index and node.op_type.startswith("Reduce")):  # its axes
                    inputs[index] = edit.constant(f"{value.name}_float", array.astype(np.float32))
                continue
            to = {"to": int(ir.DataType.FLOAT)}
            number = edit.add("Cast", [value], f"{node.name}/{index}/float", to)
            number.dtype, number.shape = ir.DataType.FLOAT, value.shape
            inputs[index] = number
        attributes = {k: a.value for k, a in node.attributes.items()}
        made = edit.add(node.op_type, inputs, f"{node.name}/floats", attributes)
        made.dtype, made.shape = ir.DataType.FLOAT, result.shape
        whole = edit.add("Round", [made], f"{node.name}/rounded", like=made)
        assert result.dtype is not None
        edit.substitute(node, "Cast", [whole], {"to": int(result.dtype)})


def _is_whole(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype is ir.DataType.BOOL or value.dtype.is_integer())


def _number_and_back(edit: GraphEditor, node: ir.Node, value: ir.Value, name: str) -> ir.Value:
    assert value.dtype is not None
    edit.at(node)
    number = edit.add("Cast", [value], f"{name}/number", {"to": int(ir.DataType.FLOAT)})
    number.dtype, number.shape = ir.DataType.FLOAT, value.shape
    if value.dtype is not ir.DataType.BOOL:  # a Cast to whole numbers cuts off
        number = edit.add("Round", [number], f"{name}/rounded", like=number)
    back = edit.add("Cast", [number], f"{name}/whole", {"to": int(value.dtype)})
    back.dtype, back.shape = value.dtype, value.shape
    return back


def _same_again(value: ir.Value) -> ir.Value | None:
    """The same value, made of a float before: it is taken again, so that the float is quantized once."""
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
