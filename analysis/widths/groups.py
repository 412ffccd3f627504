"""Widths as Concrete has them: values that meet before a bootstrap are all as wide as the widest of them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...ir.bits import bits_of
from ...ir.graph import is_dialect, variable_inputs
from ...ir.ops import Decrypt, Encrypt, TableLookup

MAX_NARROWED_BITS = 8
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
    if (encrypt := Encrypt.match(node)) is not None:
        return {encrypt.output: encrypt.bits}
    if (decrypt := Decrypt.match(node)) is not None:
        return {decrypt.source: decrypt.bits}
    if (lookup := TableLookup.match(node)) is not None:
        return {lookup.source: lookup.accumulator_bits, lookup.output: bits_of(*lookup.entry_range)}
    return {}


def _parts(node: ir.Node) -> bool:
    """Whether what a node returns has a width of its own."""
    return is_dialect(node, "Encrypt", "Decrypt", "TableLookup", "RoundBits")
