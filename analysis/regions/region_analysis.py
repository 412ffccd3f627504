"""``find_regions``: walks through the encrypted part until every quantizer that is needed is known."""

from __future__ import annotations

import networkx as nx
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import variable_inputs
from ...ir.placement import is_kept_on_client
from ...ir.state import ModelState
from ..batch import baked, lift
from .linear import linear_of
from .refusals import at_fault, unsupported
from .regions import Regions
from .server import server_nodes
from .walk import RegionAnalysis


def find_regions(model: ir.Model, *, cut: bool = False) -> Regions:
    """Find the encrypted part of a normalized float model and where quantizers go.

    A network without a linear operator is encrypted whole, as far as that goes; the client does the rest.

    Args:
        model: The model.
        cut: Operators were taken out of it, so that its batch cannot be judged.

    Raises:
        UnsupportedError: A node between two linear operators is neither linear, nor moves, chooses, averages,
            adds or multiplies elements, nor works element by element on one or two encrypted tensors; or
            there is no node at all, or an input has no free batch axis.
    """
    _refuse_recurrent(model)
    if not cut:
        _require_free_batch(model)
    probes = RegionAnalysis.probes(model.graph.opset_imports.get("", 21))
    server = server_nodes(model)
    whole = not any(linear_of(n) is not None for n in server)
    while server:
        needed: dict[ir.Value, None] = {}
        try:
            while True:
                walk = RegionAnalysis(Regions(server), dict(needed), probes)
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


def nothing_to_encrypt(model: ir.Model) -> UnsupportedError:
    """The error for a model without a node that depends on its inputs."""
    return UnsupportedError(
        "there is nothing to run encrypted in this model",
        found=", ".join(sorted({n.op_type for n in model.graph})) or "no nodes",
        allowed="at least one operator that depends on an input",
        do="check that the weights are stored in the model and that the file is the trained model",
    )


_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with weights that no client is left with, wherever they stand, unless their owner chose so."""


def _refuse_recurrent(model: ir.Model) -> None:
    for node in model.graph:
        recurrent = node.op_type in _RECURRENT and not node.domain and not is_kept_on_client(node)
        if recurrent and (variable := variable_inputs(node)):
            raise unsupported(node, variable)


def _require_free_batch(model: ir.Model) -> None:
    fixed = {v.shape[0] for v in model.graph.inputs if v.shape is not None and len(v.shape)}
    size = next((s for s in fixed if isinstance(s, int)), None)
    if size is None:
        return
    if (found := at_fault(model)) is not None:
        raise found
    node = lift.obstacle(model) if size == 1 and not ModelState.of(model).fixed_batch else None
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
