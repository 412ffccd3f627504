"""Replacing every operator on several encrypted elements."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.graph import MAXIMA, variable_inputs
from ...ir.movement import sample_shape
from . import maxima, pairs, products
from .editing import Editor, is_pair_lookup


def combines(node: ir.Node) -> bool:
    """Whether ``expand`` has to replace a node of the integer level."""
    if is_pair_lookup(node):
        return True
    if node.domain != "":
        return False
    if node.op_type in MAXIMA:
        return True
    return node.op_type in ("Mul", "MatMul") and len(node.inputs) == 2 and _all_encrypted(node)


def _all_encrypted(node: ir.Node) -> bool:
    return all(v in variable_inputs(node) for v in node.inputs)


def expand(model: ir.Model) -> bool:
    """Replace what combines encrypted elements by sums and lookups, in place; returns whether there was any.

    Values keep their names. Nodes outside the encrypted part stay as they are.

    Raises:
        LimitError: Operands are too wide for a table.
    """
    edit: Editor | None = None
    for node in _encrypted(model):
        if not combines(node):
            continue
        edit = edit or Editor(model)
        edit.at(node)
        if is_pair_lookup(node):
            made = pairs.expand(node, edit)
        elif node.op_type in MAXIMA:
            made = maxima.expand(node, edit)
        else:
            made = products.expand(node, edit)
        output = node.outputs[0]
        ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
        edit.ranges.forget(output)
    if edit is not None:
        RemoveUnusedNodesPass()(model)
    return edit is not None


def expanded(model: ir.Model) -> ir.Model:
    """``model`` itself where nothing is to replace, else a copy."""
    if not any(combines(n) for n in _encrypted(model)):
        return model
    copy = model.clone()
    expand(copy)
    return copy


def _encrypted(model: ir.Model) -> list[ir.Node]:
    from ..analysis.islands import after_encrypt

    reached = after_encrypt(model)
    return [n for n in model.graph if n in reached and sample_shape(n.outputs[0]) is not None]
