"""Rewrites: what is refused says why, and drivers apply what is possible or what costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import pytest

from onnx_fhe.ir.editing import GraphEditor
from onnx_fhe.ir.errors import LimitError
from onnx_fhe.passes.framework.rewriting import (
    Refusal,
    Rewrite,
    apply_greedily,
    apply_where_cheaper,
    first_match,
    refusals,
)

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
network (float[N, 4] x) => (float[N, 4] y)
{
    [first] a = Relu(x)
    [second] b = Relu(a)
    [third] c = Neg(b)
    [fourth] y = Relu(c)
}
"""


class Idempotent(Rewrite[ir.Node]):
    """A Relu of a Relu is one."""

    name: ClassVar[str] = "idempotent"

    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        if node.op_type != "Relu":
            return None
        before = node.inputs[0].producer()
        if before is None or before.op_type != "Relu":
            return Refusal("no Relu stands before it")
        return node

    def apply(self, match: ir.Node) -> None:
        self.edit.bypass(match, match.inputs[0])


class ReluIsAbs(Rewrite[ir.Node]):
    """It has nothing to say about operators other than Relu."""

    name: ClassVar[str] = "relu-is-abs"

    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)

    def match(self, node: ir.Node) -> ir.Node | None:
        return node if node.op_type == "Relu" else None

    def apply(self, match: ir.Node) -> None:
        self.edit.substitute(match, "Abs", match.inputs)


@dataclass(frozen=True)
class Count:
    """So many nodes, and whether Abs is among them."""

    nodes: int
    parts: int

    def allows(self, after: Count) -> bool:
        return after.nodes <= self.nodes

    def allows_each(self, after: Count) -> bool:
        return self.allows(after) and after.parts <= self.parts

    def exceeds(self, after: Count) -> bool:
        return after.nodes < self.nodes


def count(model: ir.Model) -> Count:
    operators = [n.op_type for n in model.graph]
    if operators.count("Abs") > 2:
        raise LimitError("too many", do="take fewer")
    return Count(len(operators), operators.count("Abs"))


@pytest.fixture
def model():
    return ir.from_onnx_text(TEXT)


def operators(model):
    return [n.op_type for n in model.graph]


def test_what_is_refused_says_why_and_other_operators_do_not_count(model):
    reason = "no Relu stands before it"
    assert refusals(model.graph, [Idempotent(model)]) == [
        ("first", "idempotent", reason),
        ("fourth", "idempotent", reason),
    ]


def test_a_refusal_is_no_match(model):
    rewrite, found = first_match(model.graph.node("first"), [Idempotent(model), ReluIsAbs(model)])
    assert (rewrite.name, found.name) == ("relu-is-abs", "first")
    assert first_match(model.graph.node("third"), [Idempotent(model)]) == (None, None)


def test_a_greedy_sweep_leaves_nodes_alone_that_are_gone(model):
    assert apply_greedily(list(model.graph), [Idempotent(model), ReluIsAbs(model)])
    assert operators(model) == ["Abs", "Abs", "Neg", "Abs"]
    assert not apply_greedily(list(model.graph), [Idempotent(model), ReluIsAbs(model)])


def test_only_what_costs_nothing_is_kept(model):
    assert apply_where_cheaper(model, lambda: [Idempotent(model)], count, lambda m: m.graph)
    assert operators(model) == ["Relu", "Neg", "Relu"]
    assert not apply_where_cheaper(model, lambda: [ReluIsAbs(model)], count, lambda m: m.graph, strictly=True)
    assert operators(model) == ["Relu", "Neg", "Relu"]


def test_what_cannot_be_priced_is_taken_back(model):
    assert apply_where_cheaper(model, lambda: [ReluIsAbs(model)], count, lambda m: m.graph)
    assert operators(model) == ["Abs", "Abs", "Neg", "Relu"]


def test_together_what_costs_something_in_a_part_is_tried_one_by_one(model):
    asked = []

    def price(model: ir.Model) -> Count:
        asked.append(operators(model))
        return count(model)

    assert apply_where_cheaper(model, lambda: [Idempotent(model)], price, lambda m: m.graph, together=True)
    assert operators(model) == ["Relu", "Neg", "Relu"]
    assert len(asked) == 2, "before and after the round"
    assert apply_where_cheaper(model, lambda: [ReluIsAbs(model)], count, lambda m: m.graph, together=True)
    assert operators(model) == ["Abs", "Neg", "Abs"]
