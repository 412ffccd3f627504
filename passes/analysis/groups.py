"""Widths as Concrete has them: values that meet before a bootstrap are all as wide as the widest of them."""

from __future__ import annotations

import networkx as nx
import onnx_ir as ir

from ...ir.graph import extremes_of, int_of, is_dialect, variable_inputs
from ..analyze_bit_widths import table_width

NARROWED = 8
"""A table of up to this many bits keeps its own width however wide what meets its input is.

Concrete shifts the input up to it, and the noise with it, which has to be as small as the group's width asks.
"""


def group_widths(model: ir.Model) -> dict[ir.Value, int]:
    """Bits of every value: all that meet without a table or a rounding between them share the widest."""
    joined, declared = nx.Graph(), {}
    for node in model.graph:
        read = variable_inputs(node)
        joined.add_nodes_from([*read, *node.outputs])
        mark = node.op_type if is_dialect(node) else ""
        low, high = int_of(node, "low", 0), int_of(node, "high", 1)
        if mark == "Encrypt":
            declared[node.outputs[0]] = _bits(low, high)
        elif mark == "Decrypt":
            declared[read[0]] = max(declared.get(read[0], 0), _bits(low, high))
        elif mark == "TableLookup":
            width, made = table_width(node), extremes_of(node.inputs[1])
            source = before_rounding(node)
            declared[source] = max(declared.get(source, 0), width.accumulator_bits)
            if made is not None:
                declared[node.outputs[0]] = _bits(int(made[0]), int(made[1]))
        elif mark != "RoundBits":
            joined.add_edges_from((v, o) for v in read for o in node.outputs)
    widths = {}
    for group in nx.connected_components(joined):
        bits = max((declared.get(v, 1) for v in group), default=1)
        widths.update(dict.fromkeys(group, bits))
    return widths


def before_rounding(table: ir.Node) -> ir.Value:
    """The accumulator of a TableLookup: what it reads, or what the RoundBits in front of it reads."""
    source = table.inputs[0]
    assert source is not None
    producer = source.producer()
    if producer is not None and is_dialect(producer, "RoundBits") and producer.inputs[0] is not None:
        return producer.inputs[0]
    return source


def _bits(low: int, high: int) -> int:
    """Bits that hold ``low .. high``; two's complement where ``low`` is negative."""
    if low >= 0:
        return max(1, high.bit_length())
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length())
