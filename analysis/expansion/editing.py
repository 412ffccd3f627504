"""Inserting integer nodes whose shapes and bounds are known at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from typing_extensions import Self

from ...ir.errors import LimitError
from ...ir.graph import STANDS_FOR, title_of
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import TableLookup
from ..ranges.ranges import SoundRanges

MAX_TABLE_ENTRIES = 2**16
"""Largest range (integers) of a value that a table is made for here (16 bits, the most of Concrete)."""


class ExpansionEditor(IntegerEditor):
    """An editor that knows shapes and bounds of what it makes, in front of one node at a time.

    Args:
        model: An integer-level model; edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.opset = model.graph.opset_imports.get("", 21)
        self.ranges = SoundRanges(model)
        self._node: ir.Node | None = None

    def at(self, node: ir.Node | None) -> Self:
        """New nodes go in front of ``node``, which they stand for."""
        self._node = node
        return super().at(node)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of one sample, batch counted as 1."""
        assert value.shape is not None, value.name
        return 1, *(int(d) for d in list(value.shape)[1:])  # type: ignore[arg-type]

    def bounds(self, value: ir.Value) -> tuple[int, int]:
        """Smallest and largest integer that any element can be.

        Raises:
            LimitError: They are further apart than a table can be long.
        """
        low, high = (int(f(b)) for f, b in zip((np.min, np.max), self.ranges.of(value), strict=True))
        if high - low >= MAX_TABLE_ENTRIES:
            node = self._node
            raise LimitError(
                "what this operator compares or multiplies is too wide",
                node=str(node.name) if node else "",
                op=node.op_type if node else "",
                found=f"{high - low + 1} different values",
                allowed=f"{MAX_TABLE_ENTRIES}",
                do="quantize its inputs to fewer bits (the option operands of quantize)",
            )
        return low, high

    def insert(self, node: ir.Node, name: str, like: ir.Value | None = None) -> ir.Value:
        """Insert a node without a name; statistics call it after the node that it stands for."""
        if self._node is not None:
            node.metadata_props.update(zip(STANDS_FOR, title_of(self._node), strict=True))
        return super().insert(node, name, like)

    def broadcast(self, op: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        """Insert a node that broadcasts."""
        made = self.add(op, inputs, name, like=inputs[0])
        shape = np.broadcast_shapes(*(self.shape(v) if len(v.shape or ()) else () for v in inputs))
        return self._shaped(made, shape[1:])

    def pick(self, value: ir.Value, places: Sequence[int], axis: int, name: str) -> ir.Value:
        """Some entries of an axis."""
        shape = list(self.shape(value))
        if list(places) == list(range(shape[axis])):
            return value
        index = self.constant(f"{name}_places", np.asarray(places), np.int64)
        shape[axis] = len(places)
        made = self.add("Gather", [value, index], name, {"axis": axis}, like=value)
        return self._shaped(made, shape[1:])

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """Several tensors side by side."""
        shape = list(self.shape(values[0]))
        shape[axis] = sum(self.shape(v)[axis] for v in values)
        made = self.add("Concat", list(values), name, {"axis": axis}, like=values[0])
        return self._shaped(made, shape[1:])

    def reshape(self, value: ir.Value, like: ir.Value, name: str) -> ir.Value:
        """The elements of ``value`` in the shape of ``like``."""
        if self.shape(value) == self.shape(like):
            return value
        return self.to_shape(value, self.shape(like)[1:], name)

    def to_shape(self, value: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """The elements of one sample in another shape."""
        target = self.constant(f"{name}_target", np.asarray([0, *shape]), np.int64)
        return self._shaped(self.add("Reshape", [value, target], name, like=value), shape)

    def sum_over(self, value: ir.Value, axis: int, name: str) -> ir.Value:
        """The sum along one axis, which goes."""
        axes = self.constant(f"{name}_axes", np.asarray([axis]), np.int64)
        shape = list(self.shape(value))
        del shape[axis]
        made = self.add("ReduceSum", [value, axes], name, {"keepdims": 0}, like=value)
        return self._shaped(made, shape[1:])

    def lookup(self, value: ir.Value, table: np.ndarray, first: int, name: str, axis: int = 1) -> ir.Value:
        """One table (channels, size) for all inputs from ``first`` on."""
        values = self.constant(f"{name}_values", table)
        start = self.constant(f"{name}_first", np.full(len(table), first))
        return self.insert(TableLookup.make(value, values, start, axis=axis), name, like=value)

    def times(self, value: ir.Value, factor: int, name: str) -> ir.Value:
        """``factor * value``."""
        if factor == 1:
            return value
        constant = self.constant(f"{name}_factor", np.full([1] * len(value.shape or ()), factor))
        return self.add("Mul", [value, constant], name, like=value)

    def _shaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        batch = (
            self._node.outputs[0].shape[0] if self._node is not None and self._node.outputs[0].shape else "N"
        )
        value.shape = ir.Shape([batch, *shape])
        return value
