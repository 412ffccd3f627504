"""Which part of a float model will run encrypted, and where a quantizer has to stand.

A tensor of the encrypted part is one of

- an *activation*: small integers times a scale, the output of a quantizer (or a sum of such, which is an
  accumulator where a table of several elements reads it and it has grown by more than a bit);
- an *accumulator*: a linear combination of activations, or a product of two, wide, exact;
- a *function*: what element-wise operators make of one activation or accumulator, its *base*, or of a pair
  of activations. It costs nothing until somebody needs it as integers: then it becomes one table.

Linear operators eat activations, and so do products, maxima and functions of a pair. What a quantizer is
needed for follows from that alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import networkx as nx
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import variable_inputs
from ...ir.level import QUANTIZERS
from ...ir.movement import may_move
from ...ir.samples import FIXED_KEY
from .linear import linear_of
from .refusals import at_fault, unsupported

POOLS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
JOINS = frozenset({"Add", "Sub"})
PRODUCTS = frozenset({"MatMul", "Mul"})
"""Operators that may multiply two encrypted tensors."""


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
        concatenated: Groups of quantized tensors that are laid side by side: where the next layers do not
            absorb their scales they must share one.
        operands: Quantized tensors that operators on several encrypted elements (maxima, products) read.
        paired: Quantized tensors that are read by functions of a pair: one table tells all pairs apart.
        joins: Additions that an accumulator takes part in.
        results: In a network that is encrypted whole: functions that leave the encrypted part, quantized.
        settling: Operators but linear ones that read accumulators in their quantized form.
    """

    server: list[ir.Node]
    inputs: list[ir.Value] = field(default_factory=list)
    quantized: list[ir.Value] = field(default_factory=list)
    tensors: dict[ir.Value, Tensor] = field(default_factory=dict)
    bases: dict[ir.Value, ir.Value] = field(default_factory=dict)
    shared_scale: list[set[ir.Value]] = field(default_factory=list)
    concatenated: list[set[ir.Value]] = field(default_factory=list)
    operands: set[ir.Value] = field(default_factory=set)
    paired: set[ir.Value] = field(default_factory=set)
    joins: list[ir.Node] = field(default_factory=list)
    results: set[ir.Value] = field(default_factory=set)
    settling: set[ir.Node] = field(default_factory=set)


def server_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes on a path from a linear operator to a linear operator (both included), in order.

    All that comes before the first or after the last of them needs no encryption: the client does it. A
    network without any is encrypted whole: all that depends on an input, or, once quantized, on a quantizer.
    """
    linear = [n for n in model.graph if linear_of(n) is not None]
    if not linear:
        starts = [n for n in model.graph if n.op_type == "DequantizeLinear" and variable_inputs(n)]
        prepared = _prepared(model)
        reached = _reach(starts or [n for n in model.graph if variable_inputs(n) and n not in prepared])
        reached = (reached - _returned(model)) or reached
        computes = any(n.op_type not in QUANTIZERS | {"Identity"} for n in reached)
        return [n for n in model.graph if n in reached] if computes else []
    after, before = _reach(linear), _reach(linear, backwards=True)
    return [n for n in model.graph if n in after and n in before]


def _prepared(model: ir.Model) -> set[ir.Node]:
    """What is done to inputs of other types before they are floats: quantizers take nothing else.

    And what returns an input as it is.
    """
    found: set[ir.Node] = set()
    for node in model.graph:
        read = variable_inputs(node)
        if node.op_type == "Identity" and read and read[0].is_graph_input():
            found.add(node)
        if (node.op_type == "Cast" or may_move(node)) and all(
            (v.dtype is not ir.DataType.FLOAT or (node.op_type == "Reshape" and _is_flat(v)))
            and (v.is_graph_input() or v.producer() in found)
            for v in read
        ):
            found.add(node)
    return found


def _returned(model: ir.Model) -> set[ir.Node]:
    """What makes a condition or a whole number of a float that is returned: that is decrypted as it is."""
    found: set[ir.Node] = set()
    for output in model.graph.outputs:
        node = output.producer()
        if node is not None and node.op_type == "Reshape" and _is_flat(output) and not output.uses():
            found.add(node)
        if node is None or node.op_type != "Cast" or output.uses() or output.dtype is ir.DataType.FLOAT:
            continue
        source = node.inputs[0]
        if source is None or source.dtype is not ir.DataType.FLOAT:
            continue
        found.add(node)
        before = source.producer()
        if before is not None and before.op_type == "Round" and len(list(source.uses())) == 1:
            found.add(before)
    return found


def _is_flat(value: ir.Value) -> bool:
    """Whether a tensor has samples and no other axis."""
    return value.shape is not None and len(value.shape) == 1


def nothing_to_encrypt(model: ir.Model) -> UnsupportedError:
    """The error for a model without a node that depends on its inputs."""
    return UnsupportedError(
        "there is nothing to run encrypted in this model",
        found=", ".join(sorted({n.op_type for n in model.graph})) or "no nodes",
        allowed="at least one operator that depends on an input",
        do="check that the weights are stored in the model and that the file is the trained model",
    )


_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with weights that no client should be left with, wherever they stand."""


def _refuse_recurrent(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type in _RECURRENT and not node.domain and (variable := variable_inputs(node)):
            raise unsupported(node, variable)


def _require_free_batch(model: ir.Model) -> None:
    fixed = {v.shape[0] for v in model.graph.inputs if v.shape is not None and len(v.shape)}
    size = next((s for s in fixed if isinstance(s, int)), None)
    if size is None:
        return
    if (found := at_fault(model)) is not None:
        raise found
    from ..batch import baked, lift

    node = lift.obstacle(model) if size == 1 and not model.metadata_props.get(FIXED_KEY) else None
    if node is None:
        raise baked.refusal(model, size)
    raise UnsupportedError(
        "the batch of 1 is baked in: how this operator treats one sample is not known",
        node=str(node.name or ""),
        op=node.op_type,
        found="inputs with a fixed axis 0 of 1, which cannot be freed",
        allowed="models that compute each sample by itself, with samples on axis 0",
        do="export the model with a free batch axis, and keep that axis in every output",
    )


def _reach(sources: list[ir.Node], backwards: bool = False) -> set[ir.Node]:
    seen = set(sources)
    pending = list(sources)
    while pending:
        node = pending.pop()
        around: Iterable[ir.Node | None] = node.predecessors() if backwards else node.successors()
        for near in around:
            if near is not None and near not in seen:
                seen.add(near)
                pending.append(near)
    return seen


def find_regions(model: ir.Model, *, cut: bool = False) -> Regions:
    """Find the encrypted part of a normalized float model and where quantizers go.

    A network without a linear operator is encrypted whole, as far as that goes; the client does the rest.

    Args:
        model: The model.
        cut: Operators were taken out of it, so that nothing can be said of its batch.

    Raises:
        UnsupportedError: A node between two linear operators is neither linear, nor moves, chooses, averages,
            adds or multiplies elements, nor works element by element on one or two encrypted tensors; or
            there is no node at all, or an input has no free batch axis.
    """
    _refuse_recurrent(model)
    if not cut:
        _require_free_batch(model)
    from .walk import Walk  # the walk is written in terms of what this file defines

    probes = Walk.probes(model.graph.opset_imports.get("", 21))
    server = server_nodes(model)
    whole = not any(linear_of(n) is not None for n in server)
    while server:
        needed: dict[ir.Value, None] = {}
        try:
            while True:
                walk = Walk(Regions(server), dict(needed), probes)
                walk.run(whole)
                if walk.needed == needed:
                    return _finished(walk.regions, needed, walk.scales, walk.beside)
                needed = walk.needed
        except UnsupportedError:
            rest = _without(server, walk.current) if whole else []
            if not rest:
                raise
            server = rest
    raise nothing_to_encrypt(model)


def _finished(
    regions: Regions,
    needed: dict[ir.Value, None],
    scales: nx.utils.UnionFind,
    beside: nx.utils.UnionFind,
) -> Regions:
    inside = {o for n in regions.server for o in n.outputs}
    regions.inputs = [v for v in needed if v not in inside]
    regions.quantized = [v for n in regions.server for v in n.outputs if v in needed]
    regions.shared_scale = [g for g in scales.to_sets() if len(g) > 1]
    regions.concatenated = [g for g in beside.to_sets() if len(g) > 1]
    return regions


def _without(server: list[ir.Node], node: ir.Node | None) -> list[ir.Node]:
    """The nodes that do not depend on ``node``."""
    gone: set[ir.Node] = set()
    for one in server:
        if one is node or any(v.producer() in gone for v in variable_inputs(one)):
            gone.add(one)
    return [n for n in server if n not in gone] if gone else []
