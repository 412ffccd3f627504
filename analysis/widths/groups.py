"""Widths as Concrete has them: values that meet before a bootstrap are all as wide as the widest of them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...ir.graph import extremes_of, int_of, is_dialect, variable_inputs
from .table_width import table_width

NARROWED = 8
"""A table of up to this many bits keeps its own width however wide what meets its input is.

Concrete shifts the input up to it, and the noise with it, which has to be as small as the group's width asks.
"""


@dataclass(frozen=True)
class Group:
    """Values that get one width, for there is no table and no rounding between them.

    Attributes:
        values: The values.
        bits: Their width.
        widest: The TableLookup, Encrypt or Decrypt that asks for so many bits; None where none asks for any.
    """

    values: frozenset[ir.Value]
    bits: int
    widest: ir.Node | None


def groups(model: ir.Model) -> list[Group]:
    """The groups of an integer-level model whose maxima and products are lookups already."""
    # A run in the clear that has no need of it shall not wait for it.
    from networkx.utils import UnionFind

    joined = UnionFind()
    for node in model.graph:
        met = [*variable_inputs(node), *node.outputs]
        if _parts(node):
            for value in met:
                joined.union(value)
        else:
            joined.union(*met)
    asked: dict[ir.Value, list[tuple[int, ir.Node]]] = {}
    for node in model.graph:
        for value, bits in widths_asked(node).items():
            asked.setdefault(value, []).append((bits, node))
    found = []
    for values in joined.to_sets():
        bits, widest = max(
            (a for v in values for a in asked.get(v, [])), key=lambda a: a[0], default=(1, None)
        )
        found.append(Group(frozenset(values), bits, widest))
    return found


def group_widths(model: ir.Model) -> dict[ir.Value, int]:
    """Bits of every value: all that meet without a table or a rounding between them share the widest."""
    return {v: g.bits for g in groups(model) for v in g.values}


def widths_asked(node: ir.Node) -> dict[ir.Value, int]:
    """The values that a node declares a range of, each with the bits that it takes."""
    if not is_dialect(node, "Encrypt", "Decrypt", "TableLookup"):
        return {}
    low, high = int_of(node, "low", 0), int_of(node, "high", 1)
    if node.op_type == "Encrypt":
        return {node.outputs[0]: _bits(low, high)}
    if node.op_type == "Decrypt":
        return {before_rounding(node): _bits(low, high)}
    made = extremes_of(node.inputs[1])
    asked = {node.outputs[0]: _bits(int(made[0]), int(made[1]))} if made is not None else {}
    return {before_rounding(node): table_width(node).accumulator_bits, **asked}


def _parts(node: ir.Node) -> bool:
    """Whether what a node returns has a width of its own."""
    return is_dialect(node, "Encrypt", "Decrypt", "TableLookup", "RoundBits")


def before_rounding(node: ir.Node) -> ir.Value:
    """The accumulator of a TableLookup or Decrypt: what it reads, or what the RoundBits before it reads."""
    source = node.inputs[0]
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
