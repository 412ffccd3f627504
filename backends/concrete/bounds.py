"""Concrete's value ranges from our own analysis instead of from a set of sample inputs.

What comes before a table may wrap harmlessly, for the arithmetic is modular; so only values that count
declare a range: inputs, what indexes a table, what a table returns, outputs. Everything else takes the width
of its group (the values that Concrete gives one common width), and never widens it.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
import numpy as np
from concrete.fhe.dtypes import Integer
from concrete.fhe.representation import Graph, GraphProcessor, Node, Operation
from concrete.fhe.tracing import Tracer

from ...ir.bits import bits_of

RANGE = "onnx_fhe.range"
MOVES = frozenset(
    {
        "assign_static",
        "broadcast_to",
        "concatenate",
        "expand_dims",
        "index_static",
        "reshape",
        "squeeze",
        "transpose",
    }
)
"""Concrete's operations that keep the signedness of what they move, whatever their own type says."""


def declare(value: Tracer, low: int, high: int) -> None:
    """Declare the range of ``value`` (inclusive); a second declaration widens the first."""
    properties = value.computation.properties
    old_low, old_high = properties.get(RANGE, (low, high))
    properties[RANGE] = (min(low, old_low), max(high, old_high))


def declared(value: Tracer) -> tuple[int, int] | None:
    """The range that was declared, if any."""
    found: tuple[int, int] | None = value.computation.properties.get(RANGE)
    return found


def moves(value: Tracer) -> bool:
    """Whether ``value`` is only moved, so that it cannot declare a signedness of its own."""
    return value.computation.properties.get("name") in MOVES


class DeclaredRanges(GraphProcessor):
    """Gives every node its type from the declared ranges; runs before Concrete assigns widths."""

    def apply(self, graph: Graph) -> None:
        """Set bounds and types of every node in place."""
        for group in _groups(graph):
            ranges = [n.properties[RANGE] for n in group if RANGE in n.properties]
            width = max((bits_of(*r) for r in ranges), default=1)
            for node in group:
                if node.operation == Operation.Constant:
                    _reduce(node, width)
                else:
                    low, high = node.properties.get(RANGE, (0, 2**width - 1))
                    node.output.dtype = Integer(is_signed=low < 0, bit_width=bits_of(low, high))
                    node.bounds = (low, high)
        _keep_signs(graph)


class RoundedOutputs(GraphProcessor):
    """Lets the client decrypt rounded values as they are; runs after Concrete's own rounding step.

    Concrete puts a reinterpretation behind a rounding that no table reads, and pays a bootstrap for it.
    """

    def apply(self, graph: Graph) -> None:
        """Point outputs past their reinterpretation."""
        for position, node in list(graph.output_nodes.items()):
            if node.properties.get("name") == "reinterpret":
                graph.output_nodes[position] = graph.ordered_preds_of(node)[0]
        graph.prune_useless_nodes()


def _groups(graph: Graph) -> Iterator[set[Node]]:
    """Nodes that share one width: all that are joined by anything but a table or a rounding."""
    joined = nx.Graph()
    joined.add_nodes_from(graph.graph.nodes)
    for before, after in graph.graph.edges():
        rounds = after.properties.get("name") == "round_bit_pattern"
        if not (after.converted_to_table_lookup or rounds):
            joined.add_edge(before, after)
    yield from nx.connected_components(joined)


def _keep_signs(graph: Graph) -> None:
    """Give what is only moved the signedness of its source; the last operand is the one that is moved."""
    for node in nx.topological_sort(graph.graph):
        if node.properties.get("name") in MOVES:
            *others, source = graph.ordered_preds_of(node)
            for changed in (node, *others):
                changed.output.dtype.is_signed = source.output.dtype.is_signed


def _reduce(node: Node, width: int) -> None:
    """Bring a constant into what ``width`` bits of the group's modular arithmetic tell apart.

    A value of ``width`` bits is held modulo 2^(width + 1). Left as it is, a large constant would widen the
    group.
    """
    values = np.asarray(node.properties["constant"])
    if node.output.dtype.bit_width <= width:
        return
    half = 1 << width
    node.properties["constant"] = (values + half) % (2 * half) - half
    node.output.dtype = Integer(is_signed=True, bit_width=width)
