"""A table moved past operators that repeat or drop elements, to where it is applied least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.graph import variable_inputs
from ....ir.integer_editing import IntegerEditor
from ....ir.ops import TableLookup
from .moves import Moves, sample_shape
from .shaped_lookup import ShapedLookup, express, rewrite


@dataclass(frozen=True)
class Place:
    """Another place for a table.

    Attributes:
        value: What the table would read or be read as there.
        nodes: The operators between it and the table, in order of the graph.
        axis: Axis of the tables there.
        rows: Which of the old tables, for each entry of the axis.
    """

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    axis: int
    rows: np.ndarray

    @property
    def elements(self) -> int:
        """Lookups there."""
        return math.prod(sample_shape(self.value) or ())


def before(found: ShapedLookup, moves: Moves) -> Place | None:
    """The place in front of repeating operators where the table is applied least; None where that is here."""
    best: Place | None = None
    nodes: tuple[ir.Node, ...] = ()
    current, source = found.source, np.arange(found.rows.size).reshape(found.rows.shape)
    least = found.rows.size
    while (places := moves(current)) is not None:
        node = current.producer()
        assert node is not None
        (current,) = variable_inputs(node)
        nodes, source = (node, *nodes), places.ravel()[source]
        shape = sample_shape(current)
        assert shape is not None
        if math.prod(shape) >= least:
            continue
        rows, known = np.zeros(shape, np.int64), np.zeros(shape, bool)
        rows.ravel()[source.ravel()] = found.rows.ravel()
        known.ravel()[source.ravel()] = True
        if not np.array_equal(rows.ravel()[source], found.rows):
            continue  # copies of one element take different tables
        if (where := express(rows, known)) is not None:
            least, best = math.prod(shape), Place(current, nodes, *where)
    return best


def after(found: ShapedLookup, moves: Moves) -> list[Place] | None:
    """Places behind dropping operators, one for each reader, that together take fewer lookups; or None."""
    if found.output.is_graph_output():
        return None
    places = []
    for reader in dict.fromkeys(found.output.consumers()):
        best = _after(found, reader, moves)
        if best is None:
            return None
        places.append(best)
    return places if places and sum(p.elements for p in places) < found.rows.size else None


def _after(found: ShapedLookup, reader: ir.Node, moves: Moves) -> Place | None:
    best: Place | None = None
    node, rows = reader, found.rows
    nodes: tuple[ir.Node, ...] = ()
    while len(node.outputs) == 1 and (places := moves(node.outputs[0])) is not None:
        output = node.outputs[0]
        if output.is_graph_output():
            break
        nodes, rows = (*nodes, node), rows.ravel()[places]
        where = express(rows)
        if where is not None and (best is None or rows.size < best.elements):
            best = Place(output, nodes, *where)
        uses = list(output.uses())
        if len(uses) != 1:
            break
        node = uses[0].node
    return best


def apply_before(found: ShapedLookup, place: Place, edit: IntegerEditor) -> None:
    """Move the table in front of the operators of ``place``."""
    output, table = found.output, found.node
    uses = list(output.uses())
    edit.at(table)
    rounded = found.rounded_again(place.value, edit, f"{found.name}_rounding")
    table.replace_input_with(0, rounded)
    rewrite(edit, found, found.entries[place.rows], found.first[place.rows], found.step, place.axis)
    output.shape = place.value.shape
    graph = edit.model.graph
    following = next((n for n in graph if n in {u.node for u in uses}), None)
    edit.at(following)
    moved = repeat(place.nodes, output, edit)
    for use in uses:
        use.node.replace_input_with(use.idx, moved)


def apply_after(found: ShapedLookup, places: Sequence[Place], edit: IntegerEditor) -> None:
    """Put a table behind the operators of each place, in the stead of this one."""
    for place in places:
        uses = list(place.value.uses())
        edit.at(next(n for n in edit.model.graph if n in {u.node for u in uses}))
        moved = repeat(place.nodes, found.source, edit)
        name = found.name
        entries = edit.constant(f"{name}_values", found.entries[place.rows])
        first = edit.constant(f"{name}_first", found.first[place.rows])
        rounded = found.rounded_again(moved, edit, f"{name}_rounding")
        lookup = TableLookup.make(rounded, entries, first, step=found.step, axis=place.axis)
        made = edit.insert(lookup, name, moved)
        for use in uses:
            use.node.replace_input_with(use.idx, made)


def repeat(nodes: Sequence[ir.Node], value: ir.Value, edit: IntegerEditor) -> ir.Value:
    """The operators once more, on another value of the same shape."""
    for node in nodes:
        (old,) = variable_inputs(node)
        inputs = [value if v is old else v for v in node.inputs]
        value = edit.add(
            node.op_type, inputs, f"{node.name}_moved", list(node.attributes.values()), like=node.outputs[0]
        )
    return value
