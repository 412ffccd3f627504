"""The listing of a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper, parser

from onnx_fhe.ir import annotations as notes
from onnx_fhe.ir.printer import line, to_text

MODEL = """
<ir_version: 10, opset_import: ["": 21]>
net (float[N,3] x) => (float[N,2] y)
<float[2,3] w = {1, 2, 3, 4, 5, 6}, float[2] b = {0.5, -1}> {
    h = Gemm<transB = 1, alpha = 1.0, beta = 2.0>(x, w, b)
    y = Relu(h)
}
"""


def model() -> ir.Model:
    result = ir.from_proto(parser.parse_model(MODEL))
    for node, name in zip(result.graph, ("/fc1/Gemm", "/Relu"), strict=True):
        node.name = name
    result.graph[0].outputs[0].shape = ir.Shape(["N", 2])
    result.graph[0].outputs[0].dtype = ir.DataType.FLOAT
    return result


def test_a_line_for_each_node():
    assert to_text(model()) == (
        "float level, opset 21, 2 nodes\n"
        "inputs:  x[N,3]\n"
        "outputs: y[N,2]\n"
        "\n"
        "node       operator                inputs                       output\n"
        "/fc1/Gemm  Gemm {transB=1 beta=2}  x, w=float[2,3], b=[0.5 -1]  h[N,2]\n"
        "/Relu      Relu                    h                            y[N,2]\n"
    )


def test_annotations_stand_in_columns_of_their_own():
    found = model()
    notes.put(found.graph[0].outputs[0], low=-12, high=30, bits=6)
    notes.put(found.graph[1].outputs[0], low=0, high=7, bits=3, table_bits=4, pbs=2)
    head, gemm, relu = to_text(found).splitlines()[4:]
    assert head.split()[-3:] == ["range", "bits", "PBS"]
    assert gemm.endswith("-12 .. 30  6")
    assert relu.split("  ")[-1].strip() == "2"
    assert "0 .. 7" in relu
    assert "3 (table 4)" in relu


def test_long_things_are_shortened():
    weight = helper.make_tensor("w", 1, [1000], np.zeros(1000))
    found = ir.from_proto(parser.parse_model(MODEL))
    found.graph[1].attributes.add(ir.AttrInt64s("axes", list(range(50))))
    found.graph.initializers["b"].const_value = ir.from_proto(weight)
    text = to_text(found)
    assert "[0 1 2 3 ... 50 in all]" in text
    assert "b=float[1000]" in text
    assert max(map(len, text.splitlines())) < 200


def test_nothing_that_a_terminal_would_act_on():
    found = model()
    found.graph[0].name = "a\x1b[31m\nb"
    found.graph.inputs[0].name = "x\x07"
    text = to_text(found)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a\\x1b[31m\\nb" in text
    assert len(text.splitlines()) == 7
    assert line("plain /fc1/Gemm") == "plain /fc1/Gemm"
