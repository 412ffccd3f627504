"""Rewrites of the part that will run encrypted; the client computes every operator as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from ...analysis.regions.elementwise import ElementwiseProbe
from ...analysis.regions.linear import linear_of
from ...analysis.regions.regions import POOLS
from ...analysis.regions.server import server_nodes
from ...ir.editing import GraphEditor
from ...ir.graph import LAYOUT, LINEAR, rank_of, variable_inputs
from ...ir.movement import Movements
from ..framework.rewriting import first_match
from ..import_qat.detect import is_foreign
from . import choices, indices, largest, matrices, normalizations, reductions, softmax, whole
from .rule import Rule

_RULES: tuple[type[Rule[Any]], ...] = (
    choices.SpreadOperand,
    normalizations.SplitNormalization,
    reductions.SplitReduction,
    reductions.SplitNorm,
    reductions.SplitLpPool,
    normalizations.SplitLocalResponse,
    softmax.SplitSoftmax,
    reductions.DivisionToProduct,
    largest.SplitHardmax,
    largest.SplitPlaceOfLargest,
    choices.ChooseBySum,
    choices.FunctionBeforePool,
    softmax.SplitLogSoftmax,
    indices.SplitOneHot,
    indices.EmbeddingToMatmul,
    indices.KeepIndexWithin,
)
_WHOLE: tuple[type[Rule[Any]], ...] = (whole.ArithmeticInFloats, whole.ReadAsNumbers)
_CONDITIONS: tuple[type[Rule[Any]], ...] = (whole.ConditionsAsNumbers,)
"""Of models that another tool has quantized."""
_IMAGE_RANK = 4
"""Axes of a batch of images: samples, channels, height, width."""


def rewrite(model: ir.Model) -> bool:
    """One sweep over the encrypted part; returns whether anything changed.

    Raises:
        UnsupportedError: An operator is linear, but too large to be written as a matrix.
    """
    opset = model.graph.opset_imports.get("", 21)
    edit, moves, probe = GraphEditor(model), Movements(opset), ElementwiseProbe(opset)
    dense, returned = [matrices.AsDense(edit)], [whole.ReturnedAsNumber(edit)]
    modified = False
    for node in model.graph:
        if (
            matrices.has_weight(node)
            and linear_of(node) is None
            and node.op_type not in LINEAR - {"MatMul", "Conv"}
        ):
            modified |= _apply_first(node, dense)
    server = server_nodes(model)
    inside = set(server)
    last = {n for n in server if not any(r in inside for o in n.outputs for r in o.consumers())}
    if len(last) == len(server):
        last = set()  # nothing else would run encrypted
    foreign = is_foreign(model)
    everything = not foreign and not any(linear_of(n) is not None for n in server)
    rules = [rule(edit) for rule in (*(_CONDITIONS if foreign else _WHOLE), *_RULES)]
    for node in server:
        if everything and probe(node, variable_inputs(node)) and _apply_first(node, returned):
            modified = True
            continue
        if node in last:
            continue  # what comes last (in a network without a linear layer) may still be left to the client
        if _apply_first(node, rules):
            modified = True
        elif not _known(node, moves, probe):
            modified |= _apply_first(node, dense)
    return modified


def _apply_first(node: ir.Node, rules: Sequence[Rule[Any]]) -> bool:
    """Apply the first rule that is possible; returns whether there was one."""
    rule, found = first_match(node, rules)
    if rule is not None:
        rule.apply(found)
    return rule is not None


def _known(node: ir.Node, moves: Movements, probe: ElementwiseProbe) -> bool:
    """Whether the passes behind know the operator without its being a matrix."""
    if node.domain or linear_of(node) is not None or node.op_type in LAYOUT:
        return True
    if node.op_type in POOLS:
        return node.op_type != "AveragePool" or rank_of(node.inputs[0]) == _IMAGE_RANK
    variable = variable_inputs(node)
    return len(variable) != 1 or moves(node) is not None or probe(node, variable)
