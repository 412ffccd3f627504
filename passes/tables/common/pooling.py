"""Max-pooling and the tables next to it: one that never falls may be applied on either side."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.integer_editing import IntegerEditor
from .shaped_lookup import ShapedLookup


def never_falls(found: ShapedLookup, first: np.ndarray, last: np.ndarray) -> bool:
    """Whether no table gives less for more, on the entries that can be reached."""
    spans = (v[a : b + 1] for v, a, b in zip(found.entries, first, last, strict=True))
    return all((np.diff(s) >= 0).all() for s in spans)


def behind(found: ShapedLookup) -> ir.Node | None:
    """The MaxPool that alone reads the table's output, if tables are chosen by channel."""
    uses = list(found.output.uses())
    return uses[0].node if len(uses) == 1 and _is_pool(uses[0].node) and _by_channel(found) else None


def in_front(found: ShapedLookup) -> ir.Node | None:
    """The MaxPool whose output this table alone reads, if tables are chosen by channel."""
    pool = found.source.producer()
    alone = len(found.source.uses()) == 1
    return pool if pool is not None and alone and _is_pool(pool) and _by_channel(found) else None


def swap_behind(found: ShapedLookup, pool: ir.Node, edit: IntegerEditor) -> None:
    """Table, MaxPool becomes MaxPool, table."""
    pooled, small = pool.outputs[0], pool.outputs[0].shape
    uses = list(pooled.uses())
    edit.at(found.rounding.node if found.rounding is not None else found.node)
    made = _pool(pool, found.source, small, edit)
    # Others may read the rounding; the moved table has one of its own.
    found.node.replace_input_with(0, found.rounded_again(made, edit))
    found.output.shape = small
    for use in uses:
        use.node.replace_input_with(use.idx, found.output)


def swap_in_front(found: ShapedLookup, pool: ir.Node, edit: IntegerEditor) -> None:
    """MaxPool, table becomes table, MaxPool."""
    x = pool.inputs[0]
    assert x is not None
    small, uses = found.output.shape, list(found.output.uses())
    edit.at(found.node)
    found.node.replace_input_with(0, found.rounded_again(x, edit))
    found.output.shape = x.shape
    readers = {u.node for u in uses}
    edit.at(next((n for n in edit.model.graph if n in readers), None))
    made = _pool(pool, found.output, small, edit)
    for use in uses:
        use.node.replace_input_with(use.idx, made)


def _pool(pool: ir.Node, value: ir.Value, shape: ir.Shape | None, edit: IntegerEditor) -> ir.Value:
    made = edit.add("MaxPool", [value], str(pool.name), list(pool.attributes.values()), like=value)
    made.shape = shape
    return made


def _is_pool(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type == "MaxPool" and len(node.outputs) == 1


def _by_channel(found: ShapedLookup) -> bool:
    """Windows never mix channels, so tables that differ between channels do no harm."""
    rows = found.rows.reshape(len(found.rows), -1) if found.rows.ndim else found.rows
    return bool((rows == rows[:, :1]).all())
