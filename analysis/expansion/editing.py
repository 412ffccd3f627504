"""Inserting integer nodes whose shapes and bounds are known at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir.build import Builder
from ...ir.errors import LimitError
from ...ir.graph import STANDS_FOR, title_of
from ...ir.ops import TableLookup
from ..ranges.ranges import SoundRanges

MOST_ENTRIES = 2**16


class Editor:
    """A builder for one model, in front of one node at a time.

    Args:
        model: An integer-level model; edited in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.graph.opset_imports.get("", 21)
        self.build = Builder(model)
        self.ranges = SoundRanges(model)
        self._node: ir.Node | None = None

    def at(self, node: ir.Node) -> None:
        """New nodes go in front of ``node``, which they stand for."""
        self._node = node
        self.build.at(node)

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
        if high - low >= MOST_ENTRIES:
            node = self._node
            raise LimitError(
                "what this operator compares or multiplies is too wide",
                node=str(node.name) if node else "",
                op=node.op_type if node else "",
                found=f"{high - low + 1} different values",
                allowed=f"{MOST_ENTRIES}",
                do="quantize its inputs to fewer bits (the option operands of quantize)",
            )
        return low, high

    def add(
        self, op: str, inputs: Sequence[ir.Value], name: str, attributes: dict[str, object] | None = None
    ) -> ir.Value:
        """Insert a node that broadcasts."""
        made = self._add(op, inputs, inputs[0], name, attributes)
        shape = np.broadcast_shapes(*(self.shape(v) if len(v.shape or ()) else () for v in inputs))
        return self._shaped(made, shape[1:])

    def pick(self, value: ir.Value, places: Sequence[int], axis: int, name: str) -> ir.Value:
        """Some entries of an axis."""
        shape = list(self.shape(value))
        if list(places) == list(range(shape[axis])):
            return value
        index = self.build.constant(f"{name}_places", np.asarray(places), np.int64)
        shape[axis] = len(places)
        made = self._add("Gather", [value, index], value, name, {"axis": axis})
        return self._shaped(made, shape[1:])

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """Several tensors side by side."""
        shape = list(self.shape(values[0]))
        shape[axis] = sum(self.shape(v)[axis] for v in values)
        made = self._add("Concat", list(values), values[0], name, {"axis": axis})
        return self._shaped(made, shape[1:])

    def reshape(self, value: ir.Value, like: ir.Value, name: str) -> ir.Value:
        """The elements of ``value`` in the shape of ``like``."""
        if self.shape(value) == self.shape(like):
            return value
        return self.to_shape(value, self.shape(like)[1:], name)

    def to_shape(self, value: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """The elements of one sample in another shape."""
        target = self.build.constant(f"{name}_target", np.asarray([0, *shape]), np.int64)
        return self._shaped(self._add("Reshape", [value, target], value, name), shape)

    def sum_over(self, value: ir.Value, axis: int, name: str) -> ir.Value:
        """The sum along one axis, which goes."""
        axes = self.build.constant(f"{name}_axes", np.asarray([axis]), np.int64)
        shape = list(self.shape(value))
        del shape[axis]
        made = self._add("ReduceSum", [value, axes], value, name, {"keepdims": 0})
        return self._shaped(made, shape[1:])

    def lookup(self, value: ir.Value, table: np.ndarray, first: int, name: str, axis: int = 1) -> ir.Value:
        """One table (channels, size) for all inputs from ``first`` on."""
        values = self.build.constant(f"{name}_values", table)
        start = self.build.constant(f"{name}_first", np.full(len(table), first))
        return self._titled(self.build.insert(TableLookup.make(value, values, start, axis=axis), value, name))

    def times(self, value: ir.Value, factor: int, name: str) -> ir.Value:
        """``factor * value``."""
        if factor == 1:
            return value
        constant = self.build.constant(f"{name}_factor", np.full([1] * len(value.shape or ()), factor))
        return self._add("Mul", [value, constant], value, name)

    def _add(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        like: ir.Value,
        name: str,
        attributes: dict[str, object] | None = None,
    ) -> ir.Value:
        return self._titled(self.build.add(op, inputs, like, name, attributes))

    def _titled(self, value: ir.Value) -> ir.Value:
        """Statistics call what is made after the node that it stands for."""
        made = value.producer()
        if made is not None and self._node is not None:
            made.metadata_props.update(zip(STANDS_FOR, title_of(self._node), strict=True))
        return value

    def _shaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        batch = (
            self._node.outputs[0].shape[0] if self._node is not None and self._node.outputs[0].shape else "N"
        )
        value.shape = ir.Shape([batch, *shape])
        return value
