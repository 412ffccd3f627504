"""A table lookup with the rounding in front of it, and which of its tables each element takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir import dialect, runtime
from ....ir.graph import constant_of
from ....ir.integer_editing import IntegerEditor
from .moves import sample_shape


@dataclass(frozen=True)
class Unit:
    """A TableLookup and its RoundBits.

    Attributes:
        table: The TableLookup.
        rounding: The RoundBits in front of it, if any.
        source: What both read: the accumulator.
        values: (channels, size).
        first: (channels).
        step: Distance of neighbouring inputs.
        rows: For each element of one sample the table that it takes.
    """

    table: ir.Node
    rounding: ir.Node | None
    source: ir.Value
    values: np.ndarray
    first: np.ndarray
    step: int
    rows: np.ndarray

    @property
    def output(self) -> ir.Value:
        """What the lookup returns."""
        return self.table.outputs[0]

    @property
    def inputs(self) -> np.ndarray:
        """(channels, size): the input of each entry."""
        return np.asarray(self.first[:, None] + self.step * np.arange(self.values.shape[1]))


def tables(model: ir.Model) -> Iterator[ir.Node]:
    """The TableLookups of a model, in order."""
    for node in model.graph:
        if node.domain == dialect.DOMAIN and node.op_type == "TableLookup":
            yield node


def read(table: ir.Node) -> Unit | None:
    """The unit of a TableLookup; None for other nodes, and where its shape is not known."""
    if table.domain != dialect.DOMAIN or table.op_type != "TableLookup":
        return None
    values, first = constant_of(table.inputs[1]), constant_of(table.inputs[2])
    source, shape = table.inputs[0], sample_shape(table.outputs[0])
    if values is None or first is None or source is None or shape is None:
        return None
    axis = table.attributes.get_int("axis", 1) or 0
    rows = np.zeros(shape, np.int64)
    if len(values) > 1:
        if not 1 <= axis <= len(shape) or shape[axis - 1] != len(values):
            return None
        rows = np.broadcast_to(_along(np.arange(len(values)), axis - 1, len(shape)), shape).copy()
    rounding = source.producer()
    if rounding is None or rounding.domain != dialect.DOMAIN or rounding.op_type != "RoundBits":
        rounding = None
    elif (before := rounding.inputs[0]) is not None:
        source = before
    step = table.attributes.get_int("step", 1) or 1
    return Unit(table, rounding, source, values, first, step, rows)


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
    edit: IntegerEditor, table: ir.Node, values: np.ndarray, first: np.ndarray, step: int, axis: int
) -> None:
    """Give a TableLookup new tables; those that are equal in all channels become one."""
    if len(values) > 1 and (values == values[0]).all() and (first == first[0]).all():
        values, first = values[:1], first[:1]
    stem = str(table.name)
    table.replace_input_with(1, edit.constant(f"{stem}_values", values))
    table.replace_input_with(2, edit.constant(f"{stem}_first", first))
    table.attributes["step"] = ir.AttrInt64("step", step)
    table.attributes["axis"] = ir.AttrInt64("axis", axis)


def look_up(unit: Unit, rows: np.ndarray, inputs: np.ndarray, opset: int) -> np.ndarray:
    """What the unit makes of accumulators, run in onnxruntime.

    Args:
        unit: The tables.
        rows: (n) which table.
        inputs: (n, size) accumulators.
        opset: ai.onnx opset.

    Returns:
        (n, size).
    """
    source = ir.Value(name="source")
    nodes, current = [], source
    if unit.rounding is not None:
        kept = list(unit.rounding.attributes.values())
        nodes.append(ir.Node(dialect.DOMAIN, "RoundBits", [current], kept, num_outputs=1))
        current = nodes[-1].outputs[0]
        current.name = "rounded"
    constants = [
        ir.Value(name=name, const_value=ir.tensor(np.asarray(array, np.float32)))
        for name, array in (("values", unit.values[rows]), ("first", unit.first[rows]))
    ]
    attributes = [ir.AttrInt64("step", unit.step), ir.AttrInt64("axis", 1)]
    nodes.append(ir.Node(dialect.DOMAIN, "TableLookup", [current, *constants], attributes, num_outputs=1))
    given = {source: np.ascontiguousarray(inputs.T, np.float32)}
    (found,) = runtime.run_nodes(nodes, given, nodes[-1].outputs, opset)
    return found.T


def _along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])
