"""Which part of a float model will run encrypted, and where a quantizer has to stand.

A tensor of the encrypted part is one of

- an *activation*: small integers times a scale, the output of a quantizer (or a sum of such);
- an *accumulator*: a linear combination of activations, wide, exact;
- a *function*: what element-wise operators make of one activation or accumulator, its *base*. It costs
  nothing until somebody needs it as integers: then it becomes one table on the base.

Linear operators eat activations. What a quantizer is needed for follows from that alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import networkx as nx
import numpy as np
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, variable_inputs
from .elementwise import ElementwiseProbe
from .linear import linear_of
from .scaling import carried

POOLS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
JOINS = frozenset({"Add", "Sub"})


class Kind(Enum):
    """What a tensor of the encrypted part is."""

    ACTIVATION = "activation"
    ACCUMULATOR = "accumulator"
    FUNCTION = "function"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the encrypted part; ``base`` is what it is a function of (itself unless a function)."""

    kind: Kind
    base: ir.Value


@dataclass
class Regions:
    """The result of ``find_regions``.

    Attributes:
        server: The nodes that run encrypted, in order.
        inputs: Tensors computed by the client that encrypted nodes read; they are quantized there.
        quantized: Functions and accumulators that need a quantizer; each is one table lookup for each
            element.
        tensors: What each tensor of the encrypted part is.
        bases: What each quantized tensor is a function of: the accumulator (or activation) in front of its
            table.
        shared_scale: Groups of quantized tensors that meet in an addition and so must share a scale.
        joins: Additions that an accumulator takes part in.
        pooled: Pooling across accumulators of different scale: it reads their quantized form.
    """

    server: list[ir.Node]
    inputs: list[ir.Value] = field(default_factory=list)
    quantized: list[ir.Value] = field(default_factory=list)
    tensors: dict[ir.Value, Tensor] = field(default_factory=dict)
    bases: dict[ir.Value, ir.Value] = field(default_factory=dict)
    shared_scale: list[set[ir.Value]] = field(default_factory=list)
    joins: list[ir.Node] = field(default_factory=list)
    pooled: set[ir.Node] = field(default_factory=set)


def server_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes on a path from a linear operator to a linear operator (both included), in order.

    All that comes before the first or after the last of them needs no encryption: the client does it.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(model.graph)
    for node in model.graph:
        graph.add_edges_from((p, node) for v in variable_inputs(node) if (p := v.producer()) is not None)
    linear = [n for n in model.graph if linear_of(n) is not None]
    after, before = _reach(graph, linear), _reach(graph.reverse(copy=False), linear)
    return [n for n in model.graph if n in after and n in before]


def nothing_to_encrypt(model: ir.Model) -> UnsupportedError:
    """The error for a model without a linear operator."""
    return UnsupportedError(
        "there is nothing to run encrypted in this model",
        found=", ".join(sorted({n.op_type for n in model.graph})) or "no nodes",
        allowed="at least one Gemm, MatMul or Conv with constant weights that depends on an input",
        do="check that the weights are stored in the model and that the file is the trained model",
    )


def _reach(graph: nx.DiGraph, sources: list[ir.Node]) -> set[ir.Node]:
    seen = set(sources)
    pending = list(sources)
    while pending:
        for following in graph.successors(pending.pop()):
            if following not in seen:
                seen.add(following)
                pending.append(following)
    return seen


def find_regions(model: ir.Model) -> Regions:
    """Find the encrypted part of a normalized float model and where quantizers go.

    Raises:
        UnsupportedError: A node between two linear operators is neither linear, layout, average pooling, an
            addition nor element-wise in one encrypted tensor, or there is no linear operator at all.
    """
    server = server_nodes(model)
    if not server:
        raise nothing_to_encrypt(model)
    probe = ElementwiseProbe(model.graph.opset_imports.get("", 21))
    needed: dict[ir.Value, None] = {}
    while True:
        walk = _Walk(Regions(server), dict(needed), probe)
        walk.run()
        if walk.needed == needed:
            break
        needed = walk.needed
    regions = walk.regions
    inside = {o for n in server for o in n.outputs}
    regions.inputs = [v for v in needed if v not in inside]
    regions.quantized = [v for n in server for v in n.outputs if v in needed]
    regions.shared_scale = [g for g in walk.scales.to_sets() if len(g) > 1]
    return regions


class _Walk:
    """One forward walk over the encrypted nodes, with the quantizers known so far."""

    def __init__(self, regions: Regions, needed: dict[ir.Value, None], probe: ElementwiseProbe) -> None:
        self.regions = regions
        self.needed = needed
        self.probe = probe
        self.scales = nx.utils.UnionFind()
        self.roots: dict[ir.Value, list[ir.Value]] = {}
        # Stand-ins for the scales of accumulators, one for each channel, to see which of them get mixed.
        self.units: dict[ir.Value, np.ndarray] = {}

    def run(self) -> None:
        for node in self.regions.server:
            tensor = self._visit(node)
            for output in node.outputs:
                self._define(output, tensor or Tensor(Kind.ACCUMULATOR, output))

    def _define(self, value: ir.Value, tensor: Tensor) -> None:
        self.regions.bases[value] = tensor.base
        if value in self.needed and tensor.kind is not Kind.ACCUMULATOR:
            tensor = Tensor(Kind.ACTIVATION, value)
        self.regions.tensors[value] = tensor

    def _get(self, value: ir.Value) -> Tensor:
        """A tensor as its consumer finds it; one that the client computes arrives as an activation."""
        if value not in self.regions.tensors:
            return self._require(value)
        return self.regions.tensors[value]

    def _require(self, value: ir.Value) -> Tensor:
        """The tensor as an activation, through a quantizer if it is none yet."""
        known = self.regions.tensors.get(value)
        if known is not None and known.kind is Kind.ACTIVATION:
            return known
        self.needed.setdefault(value)
        self.roots[value] = [value]
        return Tensor(Kind.ACTIVATION, value)

    def _visit(self, node: ir.Node) -> Tensor | None:
        """What the node's output is; None for a fresh accumulator."""
        variable = variable_inputs(node)
        output = node.outputs[0]
        linear = linear_of(node)
        if linear is not None:
            self._require(node.inputs[0])  # type: ignore[arg-type]
            random = np.random.default_rng(len(self.units))
            scales = random.uniform(1, 2, linear.channels)
            self.units[output] = linear.along_channels(scales, len(output.shape or [0, 0]))
            return None
        if node.op_type in LAYOUT | POOLS and len(variable) == 1:
            tensor = self._get(variable[0])
            if tensor.kind is Kind.FUNCTION or not self._carries(node, variable[0], tensor):
                tensor = self._require(variable[0])
            self.roots[output] = self._roots(variable[0])
            return Tensor(tensor.kind, output)
        tensors = [self._get(v) for v in variable]
        if len({t.base for t in tensors}) == 1 and self.probe(node, variable):
            return Tensor(Kind.FUNCTION, tensors[0].base)
        if node.op_type in JOINS and len(variable) == 2:
            return self._join(node, variable)
        raise _unsupported(node, variable)

    def _carries(self, node: ir.Node, value: ir.Value, tensor: Tensor) -> bool:
        """Whether a layout operator or pooling mixes only elements of the same scale."""
        if tensor.kind is not Kind.ACCUMULATOR or value not in self.units:
            return True
        unit = carried([node], value, self.units[value])
        if unit is None:
            self.regions.pooled.add(node)
            return False
        self.units[node.outputs[0]] = unit
        return True

    def _join(self, node: ir.Node, operands: list[ir.Value]) -> Tensor:
        tensors = [self._require(v) if self._get(v).kind is Kind.FUNCTION else self._get(v) for v in operands]
        output = node.outputs[0]
        if any(t.kind is Kind.ACCUMULATOR for t in tensors):
            self.regions.joins.append(node)
            units = [self.units[v] for v in operands if v in self.units]
            self.units[output] = sum(units[1:], units[0]) if units else np.ones(1)
            return Tensor(Kind.ACCUMULATOR, output)
        roots = [r for v in operands for r in self._roots(v)]
        self.scales.union(*roots)
        self.roots[output] = roots
        return Tensor(Kind.ACTIVATION, output)

    def _roots(self, value: ir.Value) -> list[ir.Value]:
        """The quantized tensors that an activation is made of by layout, pooling and addition."""
        return self.roots.get(value, [value])


def _unsupported(node: ir.Node, variable: list[ir.Value]) -> UnsupportedError:
    several = len(variable) > 1
    return UnsupportedError(
        "this operator cannot be computed on encrypted data here",
        node=node.name or "",
        op=node.op_type,
        found=f"{node.op_type} of {len(variable)} encrypted tensors"
        if several
        else f"{node.op_type} mixes elements",
        allowed="Gemm, MatMul and Conv with constant weights, average pooling, layout operators,"
        " Add and Sub of two encrypted tensors, and any operator that works element by element on one"
        " encrypted tensor",
        do="replace it in the network (for example max by average pooling), or move it before the"
        " first or after the last linear layer, where the client computes it in the clear",
    )
