"""A table lookup on a tensor of known shape, and which of its tables each element takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.graph import is_constant
from ....ir.integer_editing import IntegerEditor
from ....ir.ops import TableLookup
from .moves import sample_shape


@dataclass(frozen=True, eq=False)
class ShapedLookup(TableLookup):
    """A TableLookup with constant tables whose output has a known shape.

    Attributes:
        node: The TableLookup.
        rows: (shape of one sample) int64: which of the tables each element takes.
    """

    rows: np.ndarray

    @classmethod
    def match(cls, node: ir.Node | None) -> ShapedLookup | None:
        """The view of ``node``; None for other operators, and where the shape or the table is not known."""
        lookup = TableLookup.match(node)
        if lookup is None or not all(is_constant(v) for v in lookup.node.inputs[1:3]):
            return None
        shape, channels, axis = sample_shape(lookup.output), lookup.channels, lookup.axis
        if shape is None:
            return None
        if channels > 1 and not (1 <= axis <= len(shape) and shape[axis - 1] == channels):
            return None
        rows = lookup.channel_of_elements((1, *shape))[0].astype(np.int64)
        return ShapedLookup(lookup.node, rows)

    def rounded_again(self, value: ir.Value, edit: IntegerEditor, name: str | None = None) -> ir.Value:
        """``value``, rounded as this lookup rounds what it reads; itself where it does not.

        Args:
            value: What to round.
            edit: Inserts the RoundBits.
            name: Name of the RoundBits; by default that of the lookup's own.
        """
        if self.rounding is None:
            return value
        return edit.insert(self.rounding.of_another(value), name or self.rounding.name, value)


def express(rows: np.ndarray, known: np.ndarray | None = None) -> tuple[int, np.ndarray] | None:
    """Rows per element as rows along one axis.

    Args:
        rows: A row for each element of one sample.
        known: Where the row matters; None for everywhere.

    Returns:
        The axis of the tensor (batch counted) and the row of each of its entries, a single row where one does
        for all; None where rows differ along several axes.
    """
    known = np.ones(rows.shape, bool) if known is None else known
    met = rows[known]
    if not met.size:
        return None
    if (met == met.flat[0]).all():
        return 1, met[:1]
    for axis in range(rows.ndim):
        others = tuple(a for a in range(rows.ndim) if a != axis)
        low = np.where(known, rows, rows.max()).min(axis=others)
        high = np.where(known, rows, rows.min()).max(axis=others)
        seen = known.any(axis=others)
        if (low == high)[seen].all():
            return axis + 1, np.where(seen, low, met.flat[0])
    return None


def rewrite(
    edit: IntegerEditor, lookup: TableLookup, entries: np.ndarray, first: np.ndarray, step: int, axis: int
) -> None:
    """Give a TableLookup new tables; those that are equal in all channels become one."""
    if len(entries) > 1 and (entries == entries[0]).all() and (first == first[0]).all():
        entries, first = entries[:1], first[:1]
    name = lookup.name
    lookup.set_tables(edit.constant(f"{name}_values", entries), edit.constant(f"{name}_first", first))
    lookup.set_step(step)
    lookup.set_axis(axis)


def look_up(lookup: TableLookup, rows: np.ndarray, inputs: np.ndarray, opset: int) -> np.ndarray:
    """What a lookup, with its rounding, makes of accumulators, run in onnxruntime.

    Args:
        lookup: The tables.
        rows: (n) which table.
        inputs: (n, size) accumulators.
        opset: ai.onnx opset.

    Returns:
        (n, size).
    """
    source = ir.Value(name="source")
    nodes, current = [], source
    if lookup.rounding is not None:
        nodes.append(lookup.rounding.of_another(current))
        current = nodes[-1].outputs[0]
        current.name = "rounded"
    entries, first = (
        ir.Value(name=name, const_value=ir.Tensor(np.asarray(array, np.float32)))
        for name, array in (("values", lookup.entries[rows]), ("first", lookup.first[rows]))
    )
    nodes.append(TableLookup.make(current, entries, first, step=lookup.step))
    given = {source: np.ascontiguousarray(inputs.T, np.float32)}
    (found,) = runtime.run_nodes(nodes, given, nodes[-1].outputs, opset)
    return found.T
