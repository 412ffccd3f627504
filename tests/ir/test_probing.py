"""Finding out what an operator does by running it: nodes of one form are asked once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.analysis.batch.beside import SampleBySampleProbe
from onnx_fhe.analysis.regions.elementwise import ElementwiseProbe
from onnx_fhe.ir.graph import variable_inputs
from onnx_fhe.ir.movement import Movements
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.probing import NodeProber, form_of

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
network (float[1, 4] x, float[1, 4] z) => (float[1, 4] y) <float[4] c = {1.0, 2.0, 3.0, 4.0}, float[4] d = {1.0, 2.0, 3.0, 4.0}, float[4] e = {1.0, 2.0, 3.0, 5.0}>
{
    [a] a = Add(x, c)
    [same] b = Add(z, d)
    [other] k = Add(z, e)
    [turned] m = Add(d, x)
    [flat] f = Flatten(x)
    [sum] s = ReduceSum <keepdims = 1> (x)
    [soft] t = Softmax(x)
    [y] y = Identity(x)
}
"""  # noqa: E501


@pytest.fixture
def nodes():
    model = ir.from_onnx_text(TEXT)
    for node in model.graph:
        node.outputs[0].type, node.outputs[0].shape = model.graph.inputs[0].type, ir.Shape([1, 4])
    return {n.name: n for n in model.graph}


def form(node):
    return form_of(node, variable_inputs(node))


def test_nodes_of_one_form_have_equal_constants_at_equal_places(nodes):
    assert form(nodes["a"]) == form(nodes["same"])
    assert len({form(nodes[k]) for k in ("a", "other", "turned", "flat")}) == 4


def test_another_type_or_shape_is_another_form(nodes):
    before = form(nodes["a"])
    nodes["a"].inputs[0].shape = ir.Shape(["N", 4])
    assert form(nodes["a"]) != before
    assert form(nodes["a"]) != form(nodes["same"])


def test_a_form_is_asked_once_and_what_cannot_be_run_has_no_answer(nodes):
    prober, asked = NodeProber[str](target_opset()), []

    def probe() -> str:
        asked.append(1)
        return "yes"

    def fails() -> str:
        raise ValueError("not on these inputs")

    for name in ("a", "same"):
        assert prober.ask(nodes[name], variable_inputs(nodes[name]), probe) == "yes"
    assert len(asked) == 1
    assert prober.ask(nodes["other"], variable_inputs(nodes["other"]), fails) is None
    assert prober.ask(nodes["other"], variable_inputs(nodes["other"]), probe) is None


def test_one_session_runs_all_inputs(nodes):
    x = nodes["a"].inputs[0]
    runs = [{x: np.full((1, 4), v, np.float32)} for v in (0, 1)]
    found = NodeProber[bool](target_opset()).run(nodes["a"], runs, nodes["a"].outputs)
    assert [f[0].tolist() for f in found] == [[[1, 2, 3, 4]], [[2, 3, 4, 5]]]


def test_the_three_questions(nodes):
    elementwise, moves = ElementwiseProbe(target_opset()), Movements(target_opset())
    beside = SampleBySampleProbe(target_opset())
    assert [n for n, v in nodes.items() if elementwise(v, variable_inputs(v))] == [
        *("a", "same", "other", "turned"),
        *("flat", "y"),
    ]
    assert [n for n, v in nodes.items() if moves(v) is not None] == ["flat", "y"]
    assert [n for n, v in nodes.items() if beside(v)] == [n for n in nodes if n != "sum"]
