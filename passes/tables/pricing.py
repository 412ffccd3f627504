"""Whether a rewrite makes a model dearer, and the loop that keeps only those that do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import networkx as nx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir import dialect
from ...ir.graph import constant_of, variable_inputs
from ..analysis.cost import EXTRACTED, bootstrap_complexity, estimate
from ..analyze_bit_widths import table_width
from .moves import Moves
from .pooling import comparisons
from .unit import tables

Rewrite = Callable[[], None]
TOLERANCE = 1e-9
"""Relative; costs are sums of floats."""


class Finder(ABC):
    """Looks for rewrites in one state of a model.

    Args:
        model: Integer level.
        moves: Which operators move elements.
    """

    def __init__(self, model: ir.Model, moves: Moves) -> None:
        self.model, self.moves = model, moves

    @abstractmethod
    def __call__(self, node: ir.Node) -> Rewrite | None:
        """The rewrite that ``node`` allows, if any. Nothing is edited before it is called."""


@dataclass(frozen=True)
class Price:
    """What a model costs, two ways.

    Attributes:
        complexity: The cost estimate's: every table as wide as it declares.
        grouped: The same where tables that meet before a bootstrap share the widest one's width, as Concrete
            has it.
        encrypted: Encrypts; a rewrite that loses one would change what the client sends.
    """

    complexity: float
    grouped: float
    encrypted: int

    def allows(self, after: Price) -> bool:
        """Whether going to ``after`` costs nothing."""
        most = 1 + TOLERANCE
        return (
            after.complexity <= self.complexity * most
            and after.grouped <= self.grouped * most
            and after.encrypted == self.encrypted
        )


def price(model: ir.Model) -> Price:
    """The price of an integer-level model."""
    found = estimate(model)
    widths = _group_widths(model)
    grouped = 0.0
    for node, layer in zip(tables(model), found.layers, strict=True):
        width, source = table_width(node), node.inputs[0]
        assert source is not None
        producer = source.producer()
        if producer is not None and producer.op_type == "RoundBits" and producer.inputs[0] is not None:
            source = producer.inputs[0]
        removed = width.accumulator_bits - width.table_bits
        bits = max(width.table_bits, widths[source] - removed)
        extra = width.bootstraps - width.lookups
        grouped += width.lookups * bootstrap_complexity(bits, layer.level) + 1e6 * EXTRACTED * extra
    pooled = sum(
        comparisons(n) * bootstrap_complexity(widths[variable_inputs(n)[0]] + 1)
        for n in model.graph
        if n.op_type == "MaxPool" and variable_inputs(n)[0] in widths
    )
    encrypted = sum(n.domain == dialect.DOMAIN and n.op_type == "Encrypt" for n in model.graph)
    return Price(found.complexity + pooled, grouped + pooled, encrypted)


def _group_widths(model: ir.Model) -> dict[ir.Value, int]:
    """Bits of every value: all that meet without a table or a rounding between them share the widest."""
    joined, declared = nx.Graph(), {}
    for node in model.graph:
        read = variable_inputs(node)
        joined.add_nodes_from([*read, *node.outputs])
        mark = node.op_type if node.domain == dialect.DOMAIN else ""
        low, high = (node.attributes.get_int(k, d) or 0 for k, d in (("low", 0), ("high", 1)))
        if mark == "Encrypt":
            declared[node.outputs[0]] = _bits(low, high)
        elif mark == "Decrypt":
            declared[read[0]] = max(declared.get(read[0], 0), _bits(low, high))
        elif mark == "TableLookup":
            width, made = table_width(node), constant_of(node.inputs[1])
            producer = read[0].producer()
            rounds = producer is not None and producer.op_type == "RoundBits"
            source = variable_inputs(producer)[0] if producer is not None and rounds else read[0]
            declared[source] = max(declared.get(source, 0), width.accumulator_bits)
            if made is not None:
                declared[node.outputs[0]] = _bits(int(made.min()), int(made.max()))
        elif mark != "RoundBits":
            joined.add_edges_from((v, o) for v in read for o in node.outputs)
    widths = {}
    for group in nx.connected_components(joined):
        bits = max((declared.get(v, 1) for v in group), default=1)
        widths.update(dict.fromkeys(group, bits))
    return widths


def _bits(low: int, high: int) -> int:
    """Bits that hold ``low .. high``; two's complement where ``low`` is negative."""
    if low >= 0:
        return max(1, high.bit_length())
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length())


def improve(
    model: ir.Model,
    finder: type[Finder],
    candidates: Callable[[ir.Model], Iterable[ir.Node]] = tables,
    strictly: bool = False,
) -> bool:
    """Apply rewrites until none is left that does not make the model dearer.

    Args:
        model: Integer level; edited in place.
        finder: Looks for rewrites; made anew for every state of the model.
        candidates: The nodes to ask, of the model as it is.
        strictly: Keep only what makes the model cheaper; for rewrites that have an inverse.

    Returns:
        Whether any rewrite was kept.
    """
    moves = Moves(model.graph.opset_imports.get("", 21))
    find, current = finder(model, moves), None
    changed, modified = True, False
    while changed:
        changed = False
        for name in [str(n.name) for n in candidates(model)]:
            node = next((n for n in model.graph if n.name == name), None)
            if node is None or (rewrite := find(node)) is None:
                continue
            current = current or price(model)
            backup = model.clone()
            rewrite()
            RemoveUnusedNodesPass()(model)
            after = price(model)
            if current.allows(after) and (not strictly or after.grouped < current.grouped * (1 - TOLERANCE)):
                current, changed, modified = after, True, True
            else:
                model.graph = backup.graph
            find = finder(model, moves)
    return modified
