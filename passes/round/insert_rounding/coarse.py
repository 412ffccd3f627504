"""Coarse tables: what ``fuse-tlu`` builds over accumulators that are too wide to compute every entry."""

from __future__ import annotations

import onnx_ir as ir

from ....ir.graph import constant_of, int_of, is_dialect
from ....ir.integer_editing import IntegerEditor

MOST_ROUNDED = 2**8
"""Entries that a rounded table may have at most; a coarse one has more."""


def rounding_of(table: ir.Node) -> ir.Node | None:
    """The RoundBits in front of a table."""
    producer = table.inputs[0].producer() if table.inputs[0] is not None else None
    return producer if producer is not None and is_dialect(producer, "RoundBits") else None


def lift(edit: IntegerEditor, table: ir.Node) -> None:
    """Let a coarse table read its accumulator directly, each entry for all that was rounded to it.

    That computes the same; only backends want it otherwise, and they do not take tables of such a size.
    """
    rounding, values, first = rounding_of(table), constant_of(table.inputs[1]), constant_of(table.inputs[2])
    if rounding is None or values is None or first is None or values.shape[1] <= MOST_ROUNDED:
        return
    step = int_of(table, "step", 1)
    table.replace_input_with(0, rounding.inputs[0])
    table.replace_input_with(2, edit.constant(f"{table.name}_lifted_first", first - step // 2))
    if not list(rounding.outputs[0].uses()):
        edit.model.graph.remove(rounding, safe=True)
