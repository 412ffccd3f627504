"""Replacing every operator on several encrypted elements."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.graph import MAXIMA, variable_inputs
from ...ir.movement import sample_shape
from ...ir.ops import PairLookup
from ..regions.fusion_groups import after_encrypt
from . import maxima, pairs, products
from .editing import ExpansionEditor
from .once import Once
from .parting import meets_wider, part


def combines(node: ir.Node) -> bool:
    """Whether ``expand`` has to replace a node of the integer level."""
    if PairLookup.match(node):
        return True
    if node.domain != "":
        return False
    if node.op_type in MAXIMA:
        return True
    return node.op_type in ("Mul", "MatMul") and len(node.inputs) == 2 and _all_encrypted(node)


def _all_encrypted(node: ir.Node) -> bool:
    return all(v in variable_inputs(node) for v in node.inputs)


def expand(model: ir.Model, edit: ExpansionEditor | None = None) -> bool:
    """Replace what combines encrypted elements by sums and lookups, in place; returns whether there was any.

    Values keep their names. Nodes outside the encrypted part stay as they are.

    Args:
        model: Integer level.
        edit: The editor of this model, if there is one already; it learns bounds of what it makes.

    Raises:
        LimitError: Operands are too wide for a table.
    """
    nodes = [n for n in _encrypted(model) if combines(n)]
    edit = edit or ExpansionEditor(model)
    for node in nodes:
        edit.at(node)
        if (lookup := PairLookup.match(node)) is not None:
            made = pairs.expand(lookup, edit)
        elif node.op_type in MAXIMA:
            made = maxima.expand(node, edit)
        else:
            made = products.expand(node, edit)
        output = node.outputs[0]
        ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
        edit.ranges.forget(output)
    if nodes:
        RemoveUnusedNodesPass()(model)
    return bool(nodes)


def expanded(model: ir.Model) -> ir.Model:
    """The model as a backend takes it: sums and lookups only, narrow ones apart from what is wide.

    It is made once for a model, as long as nobody edits that.

    Returns:
        ``model`` itself where nothing is to replace, else a copy, which the caller must not edit.
    """
    return _EXPANDED(model)


def _expanded(model: ir.Model) -> ir.Model:
    combining = any(combines(n) for n in _encrypted(model))
    if not combining and not meets_wider(model):
        return model
    copy = model.clone()
    edit = ExpansionEditor(copy)
    if expand(copy, edit) | part(copy, edit):
        RemoveUnusedNodesPass()(copy)
        return copy
    return model


_EXPANDED = Once(_expanded)


def _encrypted(model: ir.Model) -> list[ir.Node]:
    reached = after_encrypt(model)
    return [n for n in model.graph if n in reached and sample_shape(n.outputs[0]) is not None]
