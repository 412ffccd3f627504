"""Coarse tables: what ``fuse-tlu`` builds over accumulators that are too wide to compute every entry."""

from __future__ import annotations

from ....ir.integer_editing import IntegerEditor
from ....ir.ops import TableLookup

MAX_ROUNDED_ENTRIES = 2**8
"""Entries that a rounded table may have at most; a coarse one has more."""


def lift(edit: IntegerEditor, table: TableLookup) -> None:
    """Let a coarse table read its accumulator directly, each entry for all that was rounded to it.

    That computes the same; only backends want it otherwise, and they do not take tables of such a size.
    """
    rounding, entries = table.rounding, table.node.inputs[1]
    if rounding is None or entries is None or table.size <= MAX_ROUNDED_ENTRIES:
        return
    first = edit.constant(f"{table.name}_lifted_first", table.first - table.step // 2)
    table.node.replace_input_with(0, rounding.input)
    table.set_tables(entries, first)
    if not list(rounding.output.uses()):
        edit.model.graph.remove(rounding.node, safe=True)
