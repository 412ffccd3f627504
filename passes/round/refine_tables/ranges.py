"""Declared ranges behind a table that changed: they follow what is observed, as far as no width grows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.bits import bits_of
from ....ir.editing import GraphEditor
from ....ir.ops import Decrypt, TableLookup
from ...lower.outputs import widen
from .reading import declarations

Saved = list[tuple[ir.Node, list[ir.Value | None], dict[str, ir.Attr]]]


def saved(model: ir.Model, table: TableLookup) -> Saved:
    """Inputs and attributes of the table and of all that declares a range, to go back to."""
    nodes = dict.fromkeys([table.node, *(d.node for d in declarations(model))])
    return [(n, list(n.inputs), dict(n.attributes)) for n in nodes]


def restore(states: Saved) -> None:
    """Go back to what was saved."""
    for node, inputs, attributes in states:
        for index, value in enumerate(inputs):
            if node.inputs[index] is not value:
                node.replace_input_with(index, value)
        for name, attribute in attributes.items():
            node.attributes[name] = attribute


def fit_ranges(model: ir.Model, changed: TableLookup, data: Mapping[str, np.ndarray]) -> bool:
    """Make declared ranges behind ``changed`` hold what calibration data now shows.

    A table without rounding in front may shift and grow by copies of its outermost entries, a Decrypt may
    grow, each as long as it takes as many bits as before.

    Returns:
        Whether that was possible.
    """
    order = list(model.graph)
    later = [d for d in declarations(model) if order.index(d.node) > order.index(changed.node)]
    if not later:
        return True
    names = list(dict.fromkeys(str(d.input.name) for d in later))
    found = runtime.Session(model, names).run_batched(data)
    edit = GraphEditor(model)
    return all(_fit(edit, d, found[str(d.input.name)]) for d in later)


def _fit(edit: GraphEditor, declares: TableLookup | Decrypt, seen: np.ndarray) -> bool:
    if isinstance(declares, Decrypt):
        return widen(declares, float(seen.min()), float(seen.max()))
    table, first, size = declares.entries, declares.first, declares.size
    others = tuple(range(seen.ndim))
    if declares.channels > 1:
        others = tuple(i for i in others if i != declares.axis % seen.ndim)
    low, high = (np.atleast_1d(f(seen, axis=others)) for f in (np.min, np.max))
    if np.all(low >= first) and np.all(high <= first + declares.span):
        return True
    wider = max(size, int((high - low).max()) + 1)
    if declares.step != 1 or declares.rounding is not None or _bits(0, wider - 1) > _bits(0, size - 1):
        return False
    moved = np.where(low < first, low, np.maximum(first, high - wider + 1))
    index = np.arange(wider)[None] + (moved - first)[:, None]
    entries = np.take_along_axis(table, np.clip(index, 0, size - 1).astype(np.int64), axis=1)
    declares.set_tables(
        edit.constant(f"{declares.name}_shifted", entries.astype(np.float32)),
        edit.constant(f"{declares.name}_start", moved.astype(np.float32)),
    )
    return True


def _bits(low: int, high: int) -> int:
    """Bits of a range; none where it holds 0 alone, which then may not grow."""
    return bits_of(low, high, least=0)
