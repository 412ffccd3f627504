"""Which nodes of a model run encrypted: those between its first and its last linear operator."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ...ir.graph import variable_inputs
from ...ir.level import QUANTIZERS
from ...ir.movement import may_move
from ...ir.placement import is_kept_on_client
from .linear import linear_of


def server_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes on a path from a linear operator to a linear operator (both included), in order.

    All that comes before the first or after the last of them needs no encryption: the client does it. A
    network without any is encrypted whole: all that depends on an input, or, once quantized, on a quantizer.
    What was left to the client (``ir.placement``) is never among them.
    """
    linear = [n for n in model.graph if linear_of(n) is not None]
    if not linear:
        left = {n for n in model.graph if is_kept_on_client(n)}
        own = [n for n in model.graph if variable_inputs(n) and n not in left]
        starts = [n for n in own if n.op_type == "DequantizeLinear"]
        prepared = _prepared(model)
        reached = _reach(starts or [n for n in own if n not in prepared]) - left
        reached = (reached - _returned(model)) or reached
        computes = any(n.op_type not in QUANTIZERS | {"Identity"} for n in reached)
        return [n for n in model.graph if n in reached] if computes else []
    after, before = _reach(linear), _reach(linear, backwards=True)
    return [n for n in model.graph if n in after and n in before]


def _prepared(model: ir.Model) -> set[ir.Node]:
    """The nodes that prepare inputs of other types until they are floats, which quantizers need.

    Nodes that return an input as it is are among them.
    """
    found: set[ir.Node] = {n for n in model.graph if is_kept_on_client(n)}
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
    """The nodes that make a condition or a whole number of a float at the end: the float is decrypted."""
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
