"""``share-subexpressions``: what is computed twice from the same is computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...ir import dialect
from ...ir.graph import constant_of
from ...ir.level import Level
from ..framework.base import Context, Pass
from ..framework.rewriting import Refusal
from .common import pricing


@dataclass(frozen=True)
class ShareSubexpressions(Pass):
    """Let equal operators with equal inputs share one result; constants and tables are compared by content.

    ``onnx-ir.common-subexpression-elimination`` does the same without looking at the cost: values that meet
    before a table share one width in a circuit, so that a shared table can pull a narrow layer up to a wide
    one. Such a pair is left apart here.
    """

    name: ClassVar[str] = "share-subexpressions"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Share what is equal in ``model``, in place."""
        return pricing.improve(model, [Share], _all)


def _all(model: ir.Model) -> Iterable[ir.Node]:
    return model.graph


class Share(pricing.TableRewrite[tuple[ir.Node, ir.Node]]):
    """A node that computes what an earlier one computes goes."""

    name: ClassVar[str] = "share"

    def __init__(self, circuit: pricing.Circuit) -> None:
        super().__init__(circuit)
        self.first: dict[object, ir.Node] = {}
        self.keys: dict[ir.Node, object] = {}
        contents: dict[object, int] = {}
        for node in circuit.model.graph:
            if not _repeatable(node):
                continue
            inputs = [_identity(v, contents) for v in node.inputs]
            if node.op_type in {"Add", "Mul"}:
                inputs.sort(key=str)
            attributes = tuple(sorted(str(a) for a in node.attributes.values()))
            self.keys[node] = key = node.domain, node.op_type, tuple(inputs), attributes, len(node.outputs)
            self.first.setdefault(key, node)

    def match(self, node: ir.Node) -> tuple[ir.Node, ir.Node] | Refusal | None:
        """The node, and the one that stays."""
        key = self.keys.get(node)
        kept = self.first.get(key)
        if kept is None or kept is node:
            return None
        if any(o.is_graph_output() for o in node.outputs):
            return Refusal("it is returned")
        return node, kept

    def apply(self, match: tuple[ir.Node, ir.Node]) -> None:
        """Let one be read in place of the other."""
        node, kept = match
        ir.convenience.replace_all_uses_with(node.outputs, kept.outputs)


def _repeatable(node: ir.Node) -> bool:
    """Whether an operator gives the same for the same, and may go: Encrypt and Decrypt may not."""
    if node.domain == dialect.DOMAIN:
        return node.op_type in {"TableLookup", "RoundBits"}
    inner = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    if any(a.type in inner for a in node.attributes.values()):
        return False
    return node.domain == "" and not node.op_type.startswith(
        ("Random", "Bernoulli", "Multinomial", "Dropout")
    )


def _identity(value: ir.Value | None, contents: dict[object, int]) -> object:
    """Equal for the same value and for constants of the same content."""
    if value is None:
        return None
    constant = constant_of(value)
    if constant is None:
        return id(value)
    return contents.setdefault(
        (constant.shape, str(constant.dtype), constant.tobytes()), len(contents)
    ), "constant"
