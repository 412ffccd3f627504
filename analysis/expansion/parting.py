"""Keeping narrow tables apart from wide accumulators.

Values that meet between two tables all have the width of the widest. Where a maximum is compared in 5 bits
and its result then goes into accumulators of 17, the comparisons have 17 bits too: each is an expensive
bootstrap, and past 16 bits there is none. A table that changes nothing, behind the narrow values, parts the
two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.bits import bits_of
from ...ir.errors import LimitError
from ...ir.graph import STANDS_FOR, is_dialect, layer_of, title_of
from ...ir.limits import TargetLimits
from ...ir.ops import TableLookup
from ...ir.p_error import DEFAULT_P_ERROR, circuit_p_error
from ..cost.bootstrap import bootstrap_complexity
from ..cost.lookup_cost import lookup_costs
from ..widths.groups import Group, group_widths, groups, widths_asked
from .editing import ExpansionEditor

EXTRA_TABLE_SHARE = 0.95
"""A table more must bring the complexity below this share, where it is not needed."""

Vertex = tuple[object, str]


def meets_wider(model: ir.Model) -> bool:
    """Whether a table's input is made wider by what it meets."""
    if not (plain := _plain(model)):
        return False
    widths = group_widths(model)
    return any(t.accumulator_bits < widths[t.source] for t in plain)


def part(model: ir.Model, edit: ExpansionEditor) -> bool:
    """Put identity tables where they pay, or where a table could not be computed otherwise, in place.

    Args:
        model: Integer level; maxima and products are lookups already.
        edit: The editor of this model.
    """
    changed, p_error = False, circuit_p_error(model, DEFAULT_P_ERROR)
    most = TargetLimits().table_bits
    for group in groups(model):
        narrow = [t for t in _plain(model) if t.source in group.values and t.accumulator_bits < group.bits]
        cuts = _cuts(model, group, narrow, edit) if narrow else []
        if not cuts:
            continue
        before = sum(x.complexity for x in lookup_costs(model, p_error))
        made = [_insert(cut, edit) for cut in cuts]
        after = sum(x.complexity for x in lookup_costs(model, p_error))
        if group.bits <= most and after > EXTRA_TABLE_SHARE * before:
            for cut, value in zip(cuts, made, strict=True):
                _read(cut.readers, value, cut.value)
                model.graph.remove([value.producer()], safe=True)  # type: ignore[list-item]
        else:
            changed = True
    return changed


@dataclass(frozen=True)
class _Cut:
    """A value that gets an identity table behind it.

    Attributes:
        value: The value.
        readers: Those of its readers that the table's result is for.
        bounds: Smallest and largest integer of the value.
    """

    value: ir.Value
    readers: list[ir.Node]
    bounds: tuple[int, int]


def _plain(model: ir.Model) -> list[TableLookup]:
    """The tables without rounding in front of them."""
    return [t for t in TableLookup.all_in(model) if t.rounding is None]


def _cuts(model: ir.Model, group: Group, narrow: list[TableLookup], edit: ExpansionEditor) -> list[_Cut]:
    """Where the narrow tables of a group are parted from what is wider; empty where that cannot be.

    A minimum cut: on one side are the narrow tables and all that they are computed from, on the other what
    asks for more bits. Only a value that is read on the other side takes a table.
    """
    import networkx as nx

    limit = max(t.accumulator_bits for t in narrow)
    flow, bounds = nx.DiGraph(), {}
    flow.add_nodes_from(("narrow", "wide"))
    for node in model.graph:
        for value, bits in widths_asked(node).items():
            if value in group.values and bits > limit:
                flow.add_edge(_vertex(_toucher(node, value), value), "wide")
    for table in narrow:
        flow.add_edge("narrow", (table.node, "reads"))
    for value in group.values:
        producer = value.producer()
        if producer is None:
            continue
        maker, behind = _vertex(producer, value), (value, "behind")
        bounds[value] = found = _bounds(value, limit, edit)
        price = {} if found is None else {"capacity": _price(value, found, edit)}
        flow.add_edge(maker, behind, **price)
        for reader in value.consumers():
            flow.add_edge(behind, _vertex(reader, value))
            flow.add_edge(_vertex(reader, value), maker)
    try:
        near = nx.minimum_cut(flow, "narrow", "wide")[1][0]
    except nx.NetworkXUnbounded:
        return []
    cuts = []
    for value in (o for n in model.graph for o in n.outputs if o in bounds):
        producer, found = value.producer(), bounds[value]
        if producer is not None and found is not None and _vertex(producer, value) in near:
            readers = [n for n in dict.fromkeys(value.consumers()) if _vertex(n, value) not in near]
            cuts += [_Cut(value, readers, found)] if readers else []
    return cuts


def _toucher(asking: ir.Node, value: ir.Value) -> ir.Node:
    """The node at ``value`` for one that declares its range: the rounding in between, if there is one."""
    between = asking.inputs[0].producer() if asking.inputs[0] is not None else None
    touches = value in asking.inputs or value in asking.outputs
    return asking if touches or between is None else between


def _vertex(node: ir.Node, value: ir.Value) -> Vertex:
    """A node of the flow: what parts widths is one where it reads and another where it writes."""
    if not is_dialect(node, "Encrypt", "Decrypt", "TableLookup", "RoundBits"):
        return node, "node"
    return node, "makes" if value in node.outputs else "reads"


def _bounds(value: ir.Value, limit: int, edit: ExpansionEditor) -> tuple[int, int] | None:
    """Bounds of a value that a table of ``limit`` bits takes, else None."""
    try:
        low, high = edit.bounds(value)
    except (LimitError, KeyError):
        return None
    return (low, high) if bits_of(0, high - low, least=0) <= limit else None


def _price(value: ir.Value, bounds: tuple[int, int], edit: ExpansionEditor) -> float:
    bits = bits_of(0, bounds[1] - bounds[0])
    return math.prod(edit.shape(value)) * bootstrap_complexity(bits)


def _insert(cut: _Cut, edit: ExpansionEditor) -> ir.Value:
    """An identity table behind a value, for some of its readers."""
    order = {n: i for i, n in enumerate(edit.model.graph)}
    first, (low, high) = min(cut.readers, key=order.__getitem__), cut.bounds
    producer = layer_of(cut.value) or cut.value.producer()
    edit.at(first)
    made = edit.lookup(cut.value, np.arange(low, high + 1)[None], low, f"{cut.value.name}_apart")
    made.shape = cut.value.shape
    if (node := made.producer()) is not None and producer is not None:
        node.metadata_props.update(zip(STANDS_FOR, title_of(producer), strict=True))
    _read(cut.readers, cut.value, made)
    return made


def _read(readers: list[ir.Node], old: ir.Value, new: ir.Value) -> None:
    """Let nodes read another value."""
    for reader in readers:
        for index, value in enumerate(reader.inputs):
            if value is old:
                reader.replace_input_with(index, new)
