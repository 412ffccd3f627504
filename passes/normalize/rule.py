"""What the rules of normalize are: rewrites that edit by one graph editor."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.editing import GraphEditor
from ..framework.rewriting import Match, Refusal, Rewrite

NOT_FLOAT = Refusal("its result is not known to be floating-point")
NOT_STATIC = Refusal("a shape that it depends on is not known")
NOT_CONSTANT = Refusal("its weight is not constant")


class Rule(Rewrite[Match]):
    """A rewrite of a float model.

    Args:
        edit: The editor of the model; all rules of a sweep share it, and so the names that are taken.
    """

    def __init__(self, edit: GraphEditor) -> None:
        self.edit = edit

    @property
    def opset(self) -> int:
        """The ai.onnx opset of the model."""
        return self.edit.graph.opset_imports.get("", 21)


def is_onnx(node: ir.Node, *op_types: str) -> bool:
    """Whether ``node`` is one of these operators of ONNX itself."""
    return not node.domain and node.op_type in op_types
