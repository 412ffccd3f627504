"""Rewrites of the part that will run encrypted; the client computes every operator as it stands."""

from __future__ import annotations

import onnx_ir as ir

from ...analysis.regions.elementwise import ElementwiseProbe
from ...analysis.regions.linear import linear_of
from ...analysis.regions.regions import POOLS
from ...analysis.regions.server import server_nodes
from ...ir.editing import GraphEditor
from ...ir.graph import LAYOUT, LINEAR, rank_of, variable_inputs
from ...ir.movement import Movements
from ..import_qat.detect import is_foreign
from . import choices, largest, matrices, reductions, whole

_RULES = (
    choices.spread,
    reductions.normalization,
    reductions.norm,
    reductions.local_response,
    reductions.softmax,
    reductions.division,
    largest.hardmax,
    largest.place_of_largest,
    choices.choose_by_sum,
    choices.function_before_pool,
    choices.log_softmax,
    choices.one_hot,
    choices.embedding,
)
_WHOLE = (whole.arithmetic_in_floats, whole.read_as_numbers)
_CONDITIONS = (whole.conditions_as_numbers,)
"""Of models that another tool has quantized."""
_IMAGE = 4


def rewrite(model: ir.Model) -> bool:
    """One sweep over the encrypted part; returns whether anything changed.

    Raises:
        UnsupportedError: An operator is linear, but too large to be written as a matrix.
    """
    opset = model.graph.opset_imports.get("", 21)
    edit, moves, probe = GraphEditor(model), Movements(opset), ElementwiseProbe(opset)
    modified = False
    for node in model.graph:
        if (
            matrices.has_weight(node)
            and linear_of(node) is None
            and node.op_type not in LINEAR - {"MatMul", "Conv"}
        ):
            modified |= matrices.as_dense(edit, node)
    server = server_nodes(model)
    inside = set(server)
    last = {n for n in server if not any(r in inside for o in n.outputs for r in o.consumers())}
    if len(last) == len(server):
        last = set()  # nothing else would run encrypted
    foreign = is_foreign(model)
    everything = not foreign and not any(linear_of(n) is not None for n in server)
    rules = (*(_CONDITIONS if foreign else _WHOLE), *_RULES)
    for node in server:
        if everything and probe(node, variable_inputs(node)) and whole.returned_as_number(edit, node):
            modified = True
            continue
        if node in last:
            continue  # what comes last (in a network without a linear layer) may still be left to the client
        if any(rule(edit, node) for rule in rules):
            modified = True
        elif not _known(node, moves, probe):
            modified |= matrices.as_dense(edit, node)
    return modified


def _known(node: ir.Node, moves: Movements, probe: ElementwiseProbe) -> bool:
    """Whether the passes behind know the operator without its being a matrix."""
    if node.domain or linear_of(node) is not None or node.op_type in LAYOUT:
        return True
    if node.op_type in POOLS:
        return node.op_type != "AveragePool" or rank_of(node.inputs[0]) == _IMAGE
    variable = variable_inputs(node)
    return len(variable) != 1 or moves(node) is not None or probe(node, variable)
