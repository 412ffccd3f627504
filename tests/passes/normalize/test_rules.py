"""Rules of normalize: matching edits nothing, and what is refused says why."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from operator_networks import NETWORKS

from onnx_fhe.ir import shapes
from onnx_fhe.ir.editing import GraphEditor
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.runtime import to_proto
from onnx_fhe.passes.framework.rewriting import refusals
from onnx_fhe.passes.normalize import (
    affine,
    choices,
    convolutions,
    indices,
    inner,
    largest,
    linear,
    matrices,
    noops,
    normalize,
    products,
    reductions,
    softmax,
    transposes,
    whole,
    windows,
)

RULES = dict.fromkeys(
    (
        *normalize._RULES,
        *inner._RULES,
        *inner._WHOLE,
        *inner._CONDITIONS,
        matrices.AsDense,
        whole.ReturnedAsNumber,
    )
)


def load(
    body: str, inputs: str = "float[N, 4] x", output: str = "float[N, 4] y", weights: str = ""
) -> ir.Model:
    header = f'<ir_version: 10, opset_import: ["" : {target_opset()}]>\nnetwork ({inputs}) => ({output})'
    model = ir.from_onnx_text(f"{header} {f'<{weights}>' if weights else ''} {{ {body} }}")
    shapes.infer(model)
    return model


def test_rules_have_names_of_their_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("name", NETWORKS)
def test_matching_edits_nothing(name):
    model = ir.from_proto(NETWORKS[name]())
    shapes.infer(model)
    before = to_proto(model).SerializeToString(deterministic=True)
    rules = [rule(GraphEditor(model)) for rule in RULES]
    for node in model.graph:
        for rule in rules:
            try:
                rule.match(node)
            except UnsupportedError:
                continue
    assert to_proto(model).SerializeToString(deterministic=True) == before


FOUR = "float[4] c = {1.0, 2.0, 3.0, 4.0}"
SQUARE = "float[2, 2] w = {1.0, 2.0, 3.0, 4.0}"
IMAGE = "float[N, 1, 4, 4] x"
CASES = {
    affine.SpellConstants: (
        "y = Div(x, c)", {"weights": "float[1] c = {0.0}"}, "a constant would not be finite"),
    affine.SplitBatchNormalization: (
        "y = BatchNormalization(x, c, c, c, d)", {"inputs": "float[N, 4] x, float[4] d", "weights": FOUR},
        "its statistics are not constant"),
    affine.MergeConstants: (
        "a = Add(x, c) y = Add(a, d)", {"weights": f"{FOUR}, float[2, 1] d = {{1.0, 2.0}}",
                                        "inputs": "float[N, 2, 4] x", "output": "float[N, 2, 4] y"},
        "the constant of both would be larger than either"),
    affine.FoldConstants: (
        "a = MatMul(x, w) y = Add(a, b)", {"inputs": "float[N, 2] x", "output": "float[N, 2] y",
                                           "weights": f"{SQUARE}, float[2] b = {{1.0, 2.0}}"},
        "a MatMul takes in nothing but a factor for each column"),
    choices.FunctionBeforePool: (
        "a = MaxPool <kernel_shape = [2, 2]> (x) y = Neg(a)",
        {"inputs": IMAGE, "output": "float[N, 1, 3, 3] y"}, "it falls somewhere"),
    choices.LargestOfOne: (
        "y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
        {"inputs": IMAGE, "output": "float[N, 1, 4, 4] y"}, "it chooses among several elements"),
    choices.SpreadOperand: (
        "y = Add(x, c)", {"inputs": "float[3, 4] x",
         "weights": "float[1, 1, 4] c = {1.0, 2.0, 3.0, 4.0}", "output": "float[1, 3, 4] y"},
        "the constant has more axes, or a batch of its own"),
    choices.SplitToSlices: (
        "y, z = Split <axis = 0, num_outputs = 2> (x)",
        {"inputs": "float[4, 4] x", "output": "float[2, 4] y, float[2, 4] z"}, "it splits the batch"),
    convolutions.LiftOneDimension: (
        "y = Conv(x, w)", {"inputs": "float[N, 1, 4] x, float[1, 1, 1] w", "output": "float[N, 1, 4] y"},
        "its weight is not constant"),
    indices.EmbeddingToMatmul: (
        "y = Gather(c, x)", {"inputs": "int64[N, 4] x", "weights": FOUR}, "what it picks are no rows"),
    largest.SplitHardmax: (
        "y = Hardmax <axis = 0> (x)", {}, "it works along the batch"),
    linear.NormalizeGemm: (
        "y = Gemm(x, w, b)", {"inputs": "float[N, 2] x, float[N, 2] b", "output": "float[N, 2] y",
                              "weights": SQUARE}, "its bias is computed, or differs from row to row"),
    linear.MatmulToGemm: (
        "y = MatMul(x, x)", {"inputs": "float[4, 4] x", "output": "float[4, 4] y"},
        "its second operand is no constant matrix"),
    matrices.AsDense: ("y = Relu(x)", {}, "it is not affine"),
    noops.RemoveNoop: (
        "y = Identity(x)", {},
        "the model returns it, and an input or another output cannot stand in its place"),
    noops.MergeReshapes: (
        "a = Reshape(x, s) y = Reshape(a, t)",
        {"weights": "int64[2] s = {-1, 2}, int64[2] t = {0, 2}", "output": "float[M, 2] y"},
        "its target is computed, or takes a size from what it reads"),
    products.MatmulByGroups: (
        "y = MatMul(x, w)", {"inputs": "float[2, 2, 4, 2] x", "output": "float[2, 2, 4, 1] y",
                             "weights": "float[2, 1, 2, 1] w = {1.0, 2.0, 3.0, 4.0}"},
        "the constant differs from sample to sample"),
    products.EinsumToMatmul: (
        'y = Einsum <equation = "ni,i->ni"> (x, c)', {"weights": FOUR},
        "a common axis stays, or one of the tensor alone is summed"),
    reductions.DivisionToProduct: (
        "y = Div(x, c)", {"weights": FOUR}, "an operand is constant, or both are one"),
    softmax.SplitSoftmax: (
        "y = Softmax(x)", {"inputs": "float[N, 17] x", "output": "float[N, 17] y"},
        "there are more than 16 elements, or one"),
    transposes.SinkTransposes: (
        "a = Relu(x) b = Transpose <perm = [0, 2, 1]> (a) y = Softmax(b)",
        {"inputs": "float[N, 3, 4] x", "output": "float[N, 4, 3] y"}, "it does not work element by element"),
    whole.ArithmeticInFloats: ("y = Add(x, x)", {}, "its result is no whole number"),
    windows.FoldPad: (
        "a = Pad(x, p) y = Relu(a)", {"inputs": IMAGE, "output": "float[N, 1, 6, 6] y",
                                      "weights": "int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}"},
        "no Conv alone reads it"),
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.name)
def test_what_is_refused_says_why(rule):
    body, network, reason = CASES[rule]
    model = load(body, **network)
    assert reason in {why for _, _, why in refusals(model.graph, [rule(GraphEditor(model))])}
