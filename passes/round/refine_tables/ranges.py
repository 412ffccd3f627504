"""Declared ranges behind a table that changed: they follow what is observed, as far as no width grows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.editing import GraphEditor
from ....ir.graph import constant_of, int_of, is_dialect
from .reading import declarations

Saved = list[tuple[ir.Node, list[ir.Value | None], dict[str, ir.Attr]]]


def saved(model: ir.Model, table: ir.Node) -> Saved:
    """Inputs and attributes of the table and of all that declares a range, to go back to."""
    nodes = dict.fromkeys([table, *declarations(model)])
    return [(n, list(n.inputs), dict(n.attributes)) for n in nodes]


def restore(states: Saved) -> None:
    """Go back to what was saved."""
    for node, inputs, attributes in states:
        for index, value in enumerate(inputs):
            if node.inputs[index] is not value:
                node.replace_input_with(index, value)
        for name, attribute in attributes.items():
            node.attributes[name] = attribute


def fit_ranges(model: ir.Model, changed: ir.Node, data: Mapping[str, np.ndarray]) -> bool:
    """Make declared ranges behind ``changed`` hold what calibration data now shows.

    A table without rounding in front may shift and grow by copies of its outermost entries, a Decrypt may
    grow, each as long as it takes as many bits as before.

    Returns:
        Whether that was possible.
    """
    order = list(model.graph)
    later = [n for n in declarations(model) if order.index(n) > order.index(changed)]
    values = [v for n in later if (v := n.inputs[0]) is not None]
    if not values:
        return True
    found = runtime.Session(model, [str(v.name) for v in dict.fromkeys(values)]).run_batched(data)
    edit = GraphEditor(model)
    return all(_fit(edit, n, found[str(v.name)]) for n, v in zip(later, values, strict=True))


def _fit(edit: GraphEditor, node: ir.Node, seen: np.ndarray) -> bool:
    if is_dialect(node, "Decrypt"):
        return _fit_output(node, float(seen.min()), float(seen.max()))
    table, first = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    assert table is not None
    assert first is not None
    step, size = int_of(node, "step", 1), table.shape[1]
    others = tuple(range(seen.ndim))
    if len(table) > 1:
        axis = int_of(node, "axis", 1) % seen.ndim
        others = tuple(i for i in others if i != axis)
    low, high = (np.atleast_1d(f(seen, axis=others)) for f in (np.min, np.max))
    if np.all(low >= first) and np.all(high <= first + (size - 1) * step):
        return True
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    rounded = producer is not None and is_dialect(producer, "RoundBits")
    wider = max(size, int((high - low).max()) + 1)
    if step != 1 or rounded or _bits(wider) > _bits(size):
        return False
    moved = np.where(low < first, low, np.maximum(first, high - wider + 1))
    index = np.arange(wider)[None] + (moved - first)[:, None]
    entries = np.take_along_axis(table, np.clip(index, 0, size - 1).astype(np.int64), axis=1)
    node.replace_input_with(1, edit.constant(f"{node.name}_shifted", entries.astype(np.float32)))
    node.replace_input_with(2, edit.constant(f"{node.name}_start", moved.astype(np.float32)))
    return True


def _fit_output(decrypt: ir.Node, low: float, high: float) -> bool:
    declared = int_of(decrypt, "low", 0), int_of(decrypt, "high", 0)
    wider = min(declared[0], int(low)), max(declared[1], int(high))
    if _output_bits(*wider) > _output_bits(*declared):
        return False
    decrypt.attributes["low"] = ir.AttrInt64("low", wider[0])
    decrypt.attributes["high"] = ir.AttrInt64("high", wider[1])
    return True


def _bits(size: int) -> int:
    return (size - 1).bit_length()


def _output_bits(low: int, high: int) -> int:
    """Bits of a range: two's complement where it is signed."""
    if low >= 0:
        return high.bit_length()
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length())
