"""The editor of graphs: places, names, and outputs that keep theirs."""

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.ir.editing import GraphEditor, has_attributes, set_attributes
from onnx_fhe.ir.graph import constant_added_to
from onnx_fhe.ir.integer_editing import IntegerEditor
from onnx_fhe.ir.ops import RoundBits

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
network (float[N, 4] x) => (float[N, 4] y) <float c = {2.0}>
{
    [first] a = Relu(x)
    [second] b = Mul(a, c)
    [third] y = Neg(b)
}
"""


@pytest.fixture
def edit():
    return GraphEditor(ir.from_onnx_text(TEXT))


def names(edit):
    return [n.name for n in edit.graph]


def node(edit, name):
    return edit.graph.node(name)


def test_nodes_go_in_front_of_a_node_behind_a_value_or_to_the_end(edit):
    a, y = node(edit, "first").outputs[0], node(edit, "third").outputs[0]
    edit.at(node(edit, "second")).add("Abs", [a], "before")
    made = edit.behind(a).add("Abs", [a], "behind")
    edit.add("Abs", [made], "further")
    edit.at(None).add("Abs", [y], "last")
    edit.behind(edit.graph.inputs[0]).add("Abs", [edit.graph.inputs[0]], "start")
    assert names(edit) == ["start", "first", "behind", "further", "before", "second", "third", "last"]


def test_names_are_free_and_outputs_are_named_after_nodes(edit):
    x = edit.graph.inputs[0]
    made = [edit.at(None).add("Relu", [x], "first") for _ in range(2)]
    assert [v.producer().name for v in made] == ["first_1", "first_2"]
    assert [v.name for v in made] == ["first_output", "first_output_1"]
    assert [edit.constant("c", np.ones(2)).name for _ in range(2)] == ["c_1", "c_2"]
    assert edit.constant("a", np.ones(2)).name == "a_1"
    assert edit.constant("x", np.ones(2), np.float32).dtype is ir.DataType.FLOAT


def test_a_removed_constant_frees_its_name(edit):
    second = node(edit, "second")
    edit.set_constant(second, 1, np.float32([3, 4]), "other")
    assert second.inputs[1].name == "c"
    assert second.inputs[1].const_value.numpy().tolist() == [3, 4]


def test_a_constant_that_others_read_stays_as_it_was(edit):
    second = node(edit, "second")
    edit.at(None).add("Abs", [second.inputs[1]], "reader")
    edit.set_constant(second, 1, np.float32([3, 4]), "own")
    assert second.inputs[1].name == "own"
    assert edit.graph.initializers["c"].const_value.numpy().tolist() == 2.0


def test_what_stands_in_for_an_output_has_its_name(edit):
    y = node(edit, "third").outputs[0]
    made = edit.behind(y).add("Abs", [y], "positive")
    edit.stand_in(y, made, "negative")
    assert edit.graph.outputs[0] is made
    assert (made.name, y.name, made.producer().inputs[0]) == ("y", "y_negative", y)


def test_a_substitute_keeps_the_names_of_node_and_output(edit):
    third = node(edit, "third")
    made = edit.substitute(third, "Abs", third.inputs)
    assert (made.name, made.outputs[0].name, edit.graph.outputs[0]) == ("third", "y", made.outputs[0])
    assert names(edit) == ["first", "second", "third"]


def test_what_replaces_a_node_has_the_name_of_its_output(edit):
    old = node(edit, "third")
    new = edit.at(old).add("Abs", [old.inputs[0]], "better")
    edit.replace(old, new)
    assert names(edit) == ["first", "second", "better"]
    assert edit.graph.outputs == [new]
    assert new.name == "y"


def test_a_constant_that_is_added_and_seen_by_nobody_else():
    text = TEXT.replace("Mul(a, c)", "Add(c, a)")
    model = ir.from_onnx_text(text)
    first, second, third = model.graph
    add, index, constant = constant_added_to(first.outputs[0])
    assert (add, index, float(constant)) == (second, 0, 2.0)
    assert constant_added_to(second.outputs[0]) is None  # what reads it is no Add
    third.replace_input_with(0, first.outputs[0])
    assert constant_added_to(first.outputs[0]) is None  # another one sees it
    doubled = ir.from_onnx_text(text.replace("Add(c, a)", "Add(a, a)"))
    assert constant_added_to(doubled.graph[0].outputs[0]) is None


def test_a_node_that_returns_an_input_is_not_bypassed(edit):
    x = edit.graph.inputs[0]
    edit.bypass(node(edit, "first"), x)
    edit.bypass(node(edit, "second"), x)
    assert not edit.can_bypass(node(edit, "third"), x)
    assert names(edit) == ["third"]


def test_the_same_operator_again_and_a_name_that_is_handed_on(edit):
    second, x = node(edit, "second"), edit.graph.inputs[0]
    (made,) = edit.at(second).add_again(second, [x, second.inputs[1]], "copy")
    assert made.producer().op_type == "Mul"
    assert edit.take_name(second) == "second"
    assert second.name == "second_replaced"
    assert edit.at(None).add("Abs", [x], "second").producer().name == "second"


def test_attributes_are_what_was_set(edit):
    third = node(edit, "third")
    set_attributes(third, {"axis": 1})
    assert has_attributes(third, {"axis": 1})
    assert not has_attributes(third, {"axis": 2})


def test_the_integer_level_is_float32():
    edit = IntegerEditor(ir.from_onnx_text(TEXT))
    x = edit.graph.inputs[0]
    made = edit.at(None).insert(RoundBits.make(x, lsbs_to_remove=1), "round", x)
    assert (made.name, made.dtype, made.producer().domain) == ("round_out", ir.DataType.FLOAT, "onnx_fhe")
    assert edit.constant("k", np.arange(3)).dtype is ir.DataType.FLOAT
    assert edit.scaled(x, np.ones(1), "no") is x
    assert edit.shifted(x, np.zeros(1), "no") is x
