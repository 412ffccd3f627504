"""Operators that normalize rewrites: the same float outputs, and only what the passes behind know."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import Session, to_proto
from onnx_fhe.ir.sampling import random_inputs
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.normalize.normalize import Normalize

Weights = dict[str, np.ndarray]


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def model_of(body: str, shape: str, **weights: np.ndarray) -> onnx.ModelProto:
    """``body`` computes y of x; the shape of y is left open."""
    proto = parser.parse_model(
        f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}]>\n'
        f"g (float[{shape}] x) => (float y) {{ {body} }}"
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    proto.graph.output[0].CopyFrom(inferred.graph.output[0])
    return proto


def normalized(proto: onnx.ModelProto, samples: int = 3) -> ir.Model:
    """Normalize; check the outputs, the rules of the level, and that a second run changes nothing."""
    model = ir.from_proto(proto)
    Normalize()(model)
    assert not Normalize()(model).modified
    verify(model)
    onnx.checker.check_model(to_proto(model), full_check=True)
    data = random_inputs(list(proto.graph.input), samples)
    expected, found = Session(proto).run(data), Session(model).run(data)
    for name, array in expected.items():
        scale = max(float(np.abs(array).max(initial=0)), 1e-6)
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-5 * scale)
    return model


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


VECTOR = normal(3, seed=7)
LINEAR_LAYERS: dict[str, tuple[str, str, Weights]] = {
    "conv-1d": (
        "y = Conv<pads=[1,2], strides=[2], group=2>(x, w, b)",
        "N,4,9",
        {"w": normal(6, 2, 3), "b": normal(6)},
    ),
    "conv-1d-dilated": ("y = Conv<dilations=[2]>(x, w)", "N,4,9", {"w": normal(6, 4, 3)}),
    "conv-1d-same": ('y = Conv<auto_pad="SAME_UPPER">(x, w)', "N,4,9", {"w": normal(6, 4, 3)}),
    "conv-3d": (
        "y = Conv<pads=[1,0,1,1,1,0], strides=[2,1,1]>(x, w, b)",
        "N,2,4,5,4",
        {"w": normal(3, 2, 3, 2, 3), "b": normal(3)},
    ),
    "conv-3d-groups": (
        "y = Conv<group=2, dilations=[2,1,1]>(x, w)",
        "N,2,4,3,3",
        {"w": normal(4, 1, 2, 2, 2)},
    ),
    "conv-transpose": ("y = ConvTranspose(x, w, b)", "N,3,4,5", {"w": normal(3, 2, 3, 3), "b": normal(2)}),
    "conv-transpose-stride": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w)",
        "N,3,4,5",
        {"w": normal(3, 2, 4, 4)},
    ),
    "conv-transpose-crop": ("y = ConvTranspose<strides=[2,3]>(x, w)", "N,3,4,5", {"w": normal(3, 2, 3, 2)}),
    "conv-transpose-output-padding": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1], group=2>(x, w, b)",
        "N,4,3,4",
        {"w": normal(4, 3, 3, 3), "b": normal(6)},
    ),
    "conv-transpose-dilated": (
        "y = ConvTranspose<dilations=[2,1], strides=[1,2]>(x, w)",
        "N,2,4,4",
        {"w": normal(2, 2, 2, 3)},
    ),
    "conv-transpose-same": (
        'y = ConvTranspose<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',
        "N,2,4,4",
        {"w": normal(2, 2, 3, 3)},
    ),
    "conv-transpose-shape": (
        "y = ConvTranspose<output_shape=[8,9], strides=[2,2]>(x, w)",
        "N,2,4,4",
        {"w": normal(2, 2, 3, 3)},
    ),
    "conv-transpose-1d": (
        "y = ConvTranspose<strides=[2], output_padding=[1]>(x, w, b)",
        "N,3,5",
        {"w": normal(3, 2, 3), "b": normal(2)},
    ),
    "conv-transpose-3d": (
        "y = ConvTranspose<strides=[2,1,1]>(x, w)",
        "N,1,2,3,2",
        {"w": normal(1, 2, 2, 2, 2)},
    ),
    "matmul-left": ("y = MatMul(w, x)", "N,4,3", {"w": normal(5, 4)}),
    "matmul-left-vector": ("y = MatMul(w, x)", "N,4,3", {"w": normal(4)}),
    "matmul-right-vector": ("y = MatMul(x, w)", "N,4,3", {"w": VECTOR}),
    "matmul-matrix-by-vector": ("y = MatMul(x, w)", "N,3", {"w": VECTOR}),
    "matmul-one-matrix": ("y = MatMul(x, w)", "N,2,4,3", {"w": normal(1, 3, 5)}),
    "matmul-batched": ("y = MatMul(x, w)", "N,2,4,3", {"w": normal(2, 3, 5)}),
    "matmul-batched-left": ("y = MatMul(w, x)", "N,2,3,4", {"w": normal(2, 5, 3)}),
    "matmul-batched-axes": ("y = MatMul(x, w)", "N,2,3,2,4", {"w": normal(2, 1, 4, 3)}),
    "gemm-left": (
        "t = Transpose<perm=[1,0]>(x) s = Gemm(w, t) y = Transpose<perm=[1,0]>(s)",
        "N,4",
        {"w": normal(5, 4)},
    ),
    "einsum": ('y = Einsum<equation="bcij,jk->bikc">(x, w)', "N,2,3,4", {"w": normal(4, 5)}),
    "einsum-left": ('y = Einsum<equation="oc,bchw->bohw">(w, x)', "N,2,3,4", {"w": normal(5, 2)}),
    "einsum-implicit": ('y = Einsum<equation="ai,ij">(x, w)', "N,3", {"w": normal(3, 4)}),
    "einsum-two-axes": ('y = Einsum<equation="bij,ijk->bk">(x, w)', "N,3,4", {"w": normal(3, 4, 2)}),
    "einsum-diagonal": ('y = Einsum<equation="bij,ij->bi">(x, w)', "N,3,4", {"w": normal(3, 4)}),
}


@pytest.mark.parametrize("name", LINEAR_LAYERS)
def test_linear_operators_have_three_forms(name):
    body, shape, weights = LINEAR_LAYERS[name]
    model = normalized(model_of(body, shape, **weights))
    allowed = {"Gemm", "MatMul", "Conv", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"}
    assert set(ops(model)) <= allowed
    weighted = [n for n in model.graph if n.op_type in ("Gemm", "MatMul", "Conv")]
    assert len(weighted) == 1
    kernel = weighted[0].inputs[1].const_value.shape
    assert len(kernel) == (4 if weighted[0].op_type == "Conv" else 2)
    if name.startswith(("conv-1d", "conv-3d", "conv-transpose-s", "conv-transpose-o")):
        assert weighted[0].op_type == "Conv"


INSIDE: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "layer-norm": ("m = LayerNormalization<axis=-1>(h, s, b)", {"s": normal(6), "b": normal(6)}),
    "layer-norm-without-bias": ("m = LayerNormalization<axis=1>(h, s)", {"s": normal(4, 6, 6)}),
    "rms-norm": ("m = RMSNormalization(h, s)", {"s": normal(6)}),
    "instance-norm": ("m = InstanceNormalization(h, s, b)", {"s": normal(4), "b": normal(4)}),
    "group-norm": ("m = GroupNormalization<num_groups=2>(h, s, b)", {"s": normal(4), "b": normal(4)}),
    "mvn": ("m = MeanVarianceNormalization<axes=[1,2,3]>(h)", {}),
    "lrn": ("m = LRN<size=3, alpha=0.5, bias=1.5, beta=0.6>(h)", {}),
    "softmax": ("m = Softmax<axis=-1>(h)", {}),
    "softmax-channels": ("m = Softmax<axis=1>(h)", {}),
    "lp-norm": ("m = LpNormalization<axis=1, p=2>(h)", {}),
    "lp-norm-1": ("m = LpNormalization<axis=-1, p=1>(h)", {}),
    "lp-pool": ("m = LpPool<kernel_shape=[2,2], p=2>(h)", {}),
    "global-lp-pool": ("m = ReduceL2<keepdims=1>(h, a)", {"a": np.int64([2, 3])}),
    "reduce-l1": ("m = ReduceL1<keepdims=1>(h, a)", {"a": np.int64([1])}),
    "reduce-sum-square": ("m = ReduceSumSquare<keepdims=1>(h, a)", {"a": np.int64([2])}),
    "reduce-log-sum-exp": ("m = ReduceLogSumExp<keepdims=1>(h, a)", {"a": np.int64([2])}),
    "sum": ("a = Relu(h) c = Abs(h) m = Sum(h, a, c)", {}),
    "mean": ("a = Relu(h) c = Abs(h) m = Mean(h, a, c)", {}),
    "cumsum": ("m = CumSum(h, a)", {"a": np.int64(2)}),
    "cumsum-backwards": ("m = CumSum<reverse=1, exclusive=1>(h, a)", {"a": np.int64(3)}),
    "resize-linear": (
        'm = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(h, , s)',
        {"s": np.float32([1, 1, 2, 2])},
    ),
    "resize-cubic": ('m = Resize<mode="cubic">(h, , s)', {"s": np.float32([1, 1, 2, 0.5])}),
    "divide": ("a = Exp(h) d = Abs(h) e = Add(d, one) m = Div(a, e)", {"one": np.float32(1)}),
}
KNOWN = {
    *("Add", "Sub", "Mul", "Pow", "Abs", "Relu", "Exp", "Log", "Sqrt", "Reciprocal"),
    *("Gemm", "MatMul", "Conv", "ReduceMean", "ReduceSum", "AveragePool"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_operators_between_layers_are_taken_apart(name):
    body, weights = INSIDE[name]
    whole = f"h = Conv<pads=[1,1,1,1]>(x, w) {body} f = Flatten(m) y = MatMul(f, v)"
    fitting = model_of(
        whole.split(" f = ")[0].replace(" m = ", " y = "), "N,2,6,6", w=normal(4, 2, 3, 3), **weights
    )
    sample = Session(fitting).run(random_inputs(list(fitting.graph.input), 1))["y"]
    weights = {"w": normal(4, 2, 3, 3), "v": normal(sample.size, 3), **weights}
    model = normalized(model_of(whole, "N,2,6,6", **weights))
    assert set(ops(model)) <= KNOWN


def test_a_softmax_over_many_elements_stays_to_be_refused():
    body = "h = Gemm(x, w) m = Softmax(h) y = Gemm(m, v)"
    model = normalized(model_of(body, "N,4", w=normal(4, 17), v=normal(17, 3)))
    assert "Softmax" in ops(model)


def test_what_the_client_computes_stays_as_it_is():
    body = 'r = Resize<mode="linear">(x, , s) c = Conv(r, w) f = Flatten(c) g = MatMul(f, v)'
    body += " y = LpNormalization(g)"
    weights = {"s": np.float32([1, 1, 2, 2]), "w": normal(2, 1, 3, 3), "v": normal(72, 3)}
    assert ops(normalized(model_of(body, "N,1,4,4", **weights))) == [
        "Resize",
        "Conv",
        "Flatten",
        "Gemm",
        "LpNormalization",
    ]


def test_a_matrix_that_would_be_too_large_is_refused():
    body = 'h = Conv(x, w) r = Resize<mode="linear">(h, , s) c = Conv(r, w) y = Flatten(c)'
    proto = model_of(body, "N,1,40,40", w=normal(1, 1, 1, 1), s=np.float32([1, 1, 2, 2]))
    with pytest.raises(UnsupportedError, match="too large") as caught:
        Normalize()(ir.from_proto(proto))
    assert "1600 x 6400 = 10240000 entries" in caught.value.found
    assert caught.value.where.node == "n1"


def test_an_operator_that_mixes_without_being_linear_stays():
    body = "h = Conv(x, w) m = MaxPool<kernel_shape=[2,2]>(h) y = Conv(m, w)"
    assert "MaxPool" in ops(normalized(model_of(body, "N,1,5,5", w=normal(1, 1, 2, 2))))


@pytest.mark.parametrize(
    ("chooses", "pool"),
    [
        (False, "MaxPool<kernel_shape=[1,1]>(h)"),
        # Each window holds one row and one of padding.
        (False, "MaxPool<kernel_shape=[2,1], pads=[1,0,1,0], strides=[2,2]>(h)"),
        (True, "MaxPool<kernel_shape=[2,1], pads=[1,0,0,0]>(h)"),
        (True, "MaxPool<kernel_shape=[2,1], pads=[0,0,1,0]>(h)"),
    ],
)
def test_a_maximum_of_one_element_is_none(chooses, pool):
    model = normalized(
        model_of(
            f"h = Conv(x, w) m = {pool} y = Conv(m, v)", "N,1,3,2", w=normal(1, 1, 2, 2), v=normal(1, 1, 2, 1)
        )
    )
    assert ("MaxPool" in ops(model)) is chooses


NHWC = """
t = Transpose<perm=[0,3,1,2]>(x) c = Conv<pads=[1,1,1,1]>(t, w) u = Transpose<perm=[0,2,3,1]>(c)
b = Add(u, bias) s = Mul(b, gain) r = Relu(s)
v = Transpose<perm=[0,3,1,2]>(r) d = Conv<pads=[1,1,1,1]>(v, w2) e = Transpose<perm=[0,2,3,1]>(d)
j = Add(e, r) k = Relu(j) g = ReduceMean<keepdims=0>(k, a) y = MatMul(g, v2)
"""


def test_transposes_of_keras_cancel_and_constants_reach_the_weights():
    weights = {
        "w": normal(4, 2, 3, 3),
        "bias": normal(4),
        "gain": normal(4, seed=2),
        "w2": normal(4, 4, 3, 3),
        "v2": normal(4, 3),
        "a": np.int64([1, 2]),
    }
    model = normalized(model_of(NHWC, "N,5,6,2", **weights))
    assert "Mul" not in ops(model)
    assert ops(model).count("Add") == 1
    between = ops(model)[ops(model).index("Conv") : len(ops(model)) - ops(model)[::-1].index("Conv")]
    assert "Transpose" not in between


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_random_transposed_convolutions(data):
    draw = data.draw
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    strides = [draw(st.integers(1, 3)) for _ in range(2)]
    dilations = [draw(st.integers(1, 2)) for _ in range(2)]
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, r // 2)) for r in (*reach, *reach)]
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    group = draw(st.integers(1, 2))
    attributes = {
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "output_padding": extra,
        "group": group,
    }
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", **attributes)
    proto = model_of(
        "y = Relu(x)", "N,4,3,2", w=normal(4, draw(st.integers(1, 2)), *kernel, seed=draw(st.integers(0, 99)))
    )
    proto.graph.node[0].CopyFrom(node)
    inferred = onnx.shape_inference.infer_shapes(proto)
    proto.graph.output[0].CopyFrom(inferred.graph.output[0])
    dims = [d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim]
    if min(dims[1:]) < 1:
        return
    assert "ConvTranspose" not in ops(normalized(proto))
