"""Whole layers go: which can, what comes in their place, and that it is exact where nothing is curved."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from float_networks import check, content, data_of, graph, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.analysis.outputs.divergence import output_error
from onnx_fhe.cli import main
from onnx_fhe.ir.errors import DataError, PipelineError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.runtime import run, to_proto
from onnx_fhe.passes.compress.remove_layers import forms
from onnx_fhe.passes.compress.remove_layers.between import Between
from onnx_fhe.passes.compress.remove_layers.reference import line
from onnx_fhe.passes.compress.remove_layers.remove_layers import RemoveLayers
from onnx_fhe.passes.compress.remove_layers.sites import find_sites
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.pipeline import parse_passes

STRAIGHT = "LeakyRelu<alpha=1.0>"


def context_of(model: ir.Model, samples: int = 120, **given) -> Context:
    return Context(calibration=data_of(model, samples), **given)


def remove(model: ir.Model, **options) -> Context:
    """Run the pass and check what holds for every result; returns its context."""
    context = context_of(model)
    text = content(model)
    result = RemoveLayers(**options, context=context)(model)
    assert result.modified == (content(model) != text)
    check(model)
    return context


def assert_same(model: ir.Model, before: ir.Model, tolerance: float = 1e-4) -> None:
    """The same outputs, on inputs that nothing was fitted on."""
    data = data_of(before, 50, seed=9)
    wanted = run(before, data)
    for name, array in run(model, data).items():
        scale = max(1.0, float(np.abs(wanted[name]).max()))
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=tolerance * scale)


def operators(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def mlp(act: str = "Relu", sizes=(3, 8, 6, 2)) -> ir.Model:
    a, b, c, d = sizes
    return graph(
        f"h = Gemm<transB=1>(x, w1, b1) r = {act}(h) i = Gemm<transB=1>(r, w2, b2) s = {act}(i)"
        " y = Gemm<transB=1>(s, w3, b3)",
        inputs=f"float[N,{a}] x",
        outputs=f"float[N,{d}] y",
        w1=(b, a),
        b1=(b,),
        w2=(c, b),
        b2=(c,),
        w3=(d, c),
        b3=(d,),
    )


def residual(branch: str = "Relu", projection: bool = False) -> ir.Model:
    """An image block x + f(x) between two convolutions; with a projection the block halves the image."""
    stride = 2 if projection else 1
    short = "p = Conv<kernel_shape=[1,1],strides=[2,2]>(s, wp, bp)" if projection else "p = Identity(s)"
    out = 6 if projection else 4
    return graph(
        "a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w0, b0) s = Relu(a)"
        f" b = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[{stride},{stride}]>(s, w1, b1) c = {branch}(b)"
        f" d = Conv<kernel_shape=[1,1]>(c, w2, b2) {short} e = Add(p, d) f = Relu(e)"
        " g = GlobalAveragePool(f) h = Flatten(g) y = Gemm<transB=1>(h, w3, b3)",
        inputs="float[N,2,6,6] x",
        w0=(4, 2, 3, 3),
        b0=(4,),
        w1=(5, 4, 3, 3),
        b1=(5,),
        w2=(out, 5, 1, 1),
        b2=(out,),
        **({"wp": (6, 4, 1, 1), "bp": (6,)} if projection else {}),
        w3=(2, out),
        b3=(2,),
    )


def test_text_before_and_after():
    model = mlp()
    assert operators(model) == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    context = remove(model, layers=("relu1",))
    assert [
        f"{n.name} {n.inputs[0].name} {n.inputs[1].shape}" for n in model.graph if n.op_type == "Gemm"
    ] == [
        "gemm2 x [6,3]",
        "gemm4 s [2,6]",
    ]
    assert operators(model) == ["Gemm", "Relu", "Gemm"]
    (note,) = context.notes
    assert note.startswith("remove-layers: merged gemm0 into gemm2: 14 to 6 bootstraps, output error 0.")


@pytest.mark.parametrize(
    ("body", "inputs", "outputs", "left", "weights"),
    [
        pytest.param(
            f"a = Gemm<transB=1>(x, w1, b1) b = {STRAIGHT}(a) c = Mul(b, scale) d = Gemm<transB=1>(c, w2)"
            f" e = {STRAIGHT}(d) y = Gemm<transB=1>(e, w3, b3)",
            "float[N,3] x",
            "float[N,2] y",
            ["Gemm"],
            {"w1": (7, 3), "b1": (7,), "scale": (7,), "w2": (5, 7), "w3": (2, 5), "b3": (2,)},
            id="dense",
        ),
        pytest.param(
            f"a = MatMul(x, w1) b = Add(a, b1) c = {STRAIGHT}(b) d = MatMul(c, w2) e = Add(d, b2)"
            f" f = {STRAIGHT}(e) g = MatMul(f, w3) y = Add(g, b3)",
            "float[N,4,3] x",
            "float[N,4,2] y",
            ["MatMul", "Add"],
            {"w1": (3, 7), "b1": (7,), "w2": (7, 5), "b2": (5,), "w3": (5, 2), "b3": (2,)},
            id="rank-3",
        ),
        pytest.param(
            f"a = Conv<kernel_shape=[3,2],pads=[1,0,1,1]>(x, w1, b1) b = {STRAIGHT}(a)"
            f" c = Conv<kernel_shape=[2,2],strides=[2,1]>(b, w2, b2) d = {STRAIGHT}(c) e = Flatten(d)"
            " y = Gemm<transB=1>(e, w3, b3)",
            "float[N,2,6,6] x",
            "float[N,2] y",
            ["Flatten", "Gemm"],
            {"w1": (3, 2, 3, 2), "b1": (3,), "w2": (4, 3, 2, 2), "b2": (4,), "w3": (2, 60), "b3": (2,)},
            id="convolutions-and-dense",
        ),
        pytest.param(
            f"a = Conv<kernel_shape=[3,3]>(x, w1, b1) b = {STRAIGHT}(a)"
            " c = AveragePool<kernel_shape=[2,2],strides=[2,2]>(b) d = Conv<kernel_shape=[2,2]>(c, w2, b2)"
            f" e = {STRAIGHT}(d) f = Conv<kernel_shape=[1,1]>(e, w3) g = GlobalAveragePool(f) y = Flatten(g)",
            "float[N,2,8,8] x",
            "float[N,2] y",
            ["Conv", "GlobalAveragePool", "Flatten"],
            {"w1": (3, 2, 3, 3), "b1": (3,), "w2": (4, 3, 2, 2), "b2": (4,), "w3": (2, 4, 1, 1)},
            id="pooling",
        ),
        pytest.param(
            f"a = Conv<kernel_shape=[3],group=2>(x, w1, b1) b = {STRAIGHT}(a)"
            f" c = Conv<kernel_shape=[2],group=4>(b, w2, b2) d = {STRAIGHT}(c)"
            " y = Conv<kernel_shape=[1],group=2>(d, w3)",
            "float[N,4,9] x",
            "float[N,2,6] y",
            ["Unsqueeze", "Conv", "Squeeze"],
            {"w1": (4, 2, 3), "b1": (4,), "w2": (8, 1, 2), "b2": (8,), "w3": (2, 4, 1)},
            id="groups-of-one-axis",
        ),
        pytest.param(
            f"a = Gemm<transB=1>(x, w1, b1) b = Reshape(a, cube) c = {STRAIGHT}(b)"
            " d = Transpose<perm=[0,2,1]>(c) e = Flatten(d) y = Gemm<transB=1>(e, w2, b2)",
            "float[N,3] x",
            "float[N,2] y",
            ["Gemm"],
            {"w1": (6, 3), "b1": (6,), "cube": np.int64([-1, 2, 3]), "w2": (2, 6), "b2": (2,)},
            id="layout",
        ),
        pytest.param(
            f"a = Gemm<transB=1>(x, w1, b1) b = {STRAIGHT}(a) c = Gemm<transB=1>(b, w2, b2)"
            " d = Gemm<transB=1>(b, w3) y = Concat<axis=1>(c, d)",
            "float[N,3] x",
            "float[N,4] y",
            ["Gemm", "Gemm", "Concat"],
            {"w1": (6, 3), "b1": (6,), "w2": (2, 6), "b2": (2,), "w3": (2, 6)},
            id="two-readers",
        ),
        pytest.param(
            "a = Gemm<transB=1>(x, w1, b1) b = Sigmoid(a) c = Sub(a, b) d = Add(b, c)"
            " y = Gemm<transB=1>(d, w2)",
            "float[N,3] x",
            "float[N,2] y",
            ["Gemm"],
            {"w1": (6, 3), "b1": (6,), "w2": (2, 6)},
            id="several-ways-that-meet",
        ),
    ],
)
def test_without_a_curve_between_the_merged_operator_is_exact(body, inputs, outputs, left, weights):
    model = graph(body, inputs, outputs, **weights)
    before = model.clone()
    remove(model, count=9)
    assert operators(model) == left
    assert_same(model, before)
    assert not RemoveLayers(count=9, context=context_of(model))(model).modified


@st.composite
def straight_chains(draw) -> ir.Model:
    """Convolutions (padding only in front) or dense layers with nothing curved between them."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    image = draw(st.booleans())
    channels, value, body, weights = draw(st.integers(1, 3)), "x", [], {}
    # Three strides of two and kernels of three leave a row of 24; of 12 they would leave none.
    inputs = f"float[N,{channels},24,9] x" if image else f"float[N,{channels}] x"
    layers = draw(st.integers(2, 3))
    for i in range(layers):
        out = draw(st.integers(1, 4))
        last = i == layers - 1
        if image:
            kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 2))]
            strides = [draw(st.integers(1, 2)), 1]
            dilations = [1, draw(st.integers(1, 2))]
            pads = [draw(st.integers(0, 1)) for _ in range(4)] if i == 0 else [0] * 4
            group = draw(st.sampled_from([g for g in (1, channels) if out % g == 0]))
            weights[f"w{i}"] = random.normal(0, 0.5, (out, channels // group, *kernel)).astype(np.float32)
            body.append(
                f"a{i} = Conv<kernel_shape={kernel},strides={strides},dilations={dilations},pads={pads},"
                f"group={group}>({value}, w{i}, b{i})"
            )
        else:
            weights[f"w{i}"] = random.normal(0, 0.5, (out, channels)).astype(np.float32)
            body.append(f"a{i} = Gemm<transB=1>({value}, w{i}, b{i})")
        weights[f"b{i}"] = random.normal(0, 1, out).astype(np.float32)
        value, channels = f"a{i}", out
        if not last:
            body.append(draw(st.sampled_from([f"r{i} = {STRAIGHT}(a{i})", f"r{i} = Neg(a{i})"])))
            value = f"r{i}"
    body[-1] = body[-1].replace(f"a{layers - 1} =", "y =")
    return graph(" ".join(body), inputs, "float[N,A,B,C] y" if image else "float[N,A] y", **weights)


@settings(max_examples=15, deadline=None)
@given(straight_chains())
def test_chains_without_curves_become_one_operator_exactly(model):
    before = model.clone()
    remove(model, count=9)
    assert len(operators(model)) == 1
    assert_same(model, before)


WINDOWS = st.builds(
    lambda k, s, d, b, e: forms.Window((k,), (s,), (d,), (b,), (e,)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
)


def convolve(x: np.ndarray, window: forms.Window) -> np.ndarray:
    kernel = np.ones((1, 1, *window.kernel), np.float32)
    model = graph(
        f"y = Conv<kernel_shape={list(window.kernel)},strides={list(window.strides)},"
        f"dilations={list(window.dilations)},pads={[*window.begins, *window.ends]}>(x, w)",
        f"float[N,1,{x.shape[2]}] x",
        "float[N,1,A] y",
        w=kernel,
    )
    return run(model, {"x": x})["y"]


@settings(max_examples=25, deadline=None)
@given(st.lists(WINDOWS, min_size=2, max_size=3), st.integers(20, 30))
def test_a_composed_window_sees_what_the_windows_see_and_has_their_output_shape(windows, size):
    both, once = np.eye(size, dtype=np.float32)[:, None], np.eye(size, dtype=np.float32)[:, None]
    for window in windows:
        if both.shape[2] + window.begins[0] + window.ends[0] < window.extent[0]:
            return
        both = convolve(both, window)
    once = convolve(once, forms.compose(windows))
    assert once.shape == both.shape
    assert ((once != 0) | (both == 0)).all()


def test_padding_between_convolutions_is_fitted():
    body = (
        "a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w1, b1) b = Relu(a)"
        " c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(b, w2, b2) d = Relu(c)"
        " e = Flatten(d) y = Gemm<transB=1>(e, w3)"
    )
    weights = {"w1": (4, 2, 3, 3), "b1": (4,), "w2": (3, 4, 3, 3), "b2": (3,), "w3": (2, 48)}
    model = graph(body, "float[N,2,8,8] x", **weights)
    context = remove(model, layers=("relu1",))
    (conv,) = (n for n in model.graph if n.op_type == "Conv")
    assert {k: v.value for k, v in conv.attributes.items()} == {
        "dilations": (1, 1),
        "group": 1,
        "kernel_shape": (5, 5),
        "pads": (2, 2, 2, 2),
        "strides": (2, 2),
    }
    assert conv.inputs[1].shape == (3, 2, 5, 5)
    assert "merged conv0 into conv2: 304 to 48 bootstraps" in context.notes[0]


def test_a_maximum_goes_with_the_layer():
    model = graph(
        "a = Conv<kernel_shape=[3,3]>(x, w1, b1) b = Relu(a)"
        " c = MaxPool<kernel_shape=[2,2],strides=[2,2]>(b) d = Conv<kernel_shape=[2,2]>(c, w2) e = Relu(d)"
        " f = Flatten(e) y = Gemm<transB=1>(f, w3)",
        "float[N,1,8,8] x",
        w1=(3, 1, 3, 3),
        b1=(3,),
        w2=(4, 3, 2, 2),
        w3=(2, 16),
    )
    before = model.clone()
    remove(model, layers=("maxpool2",))
    assert operators(model) == ["Conv", "Relu", "Flatten", "Gemm"]
    data = data_of(before, 100, seed=5)
    assert output_error(list(run(model, data).values()), list(run(before, data).values())) < 0.6


def test_a_residual_branch_goes_and_the_shortcut_is_scaled_and_shifted():
    model = residual()
    before = model.clone()
    # A branch that gives the same whatever it reads is a shift of the channels, exactly.
    for m in (model, before):
        zero = next(n for n in m.graph if n.name == "conv4").inputs[1]
        zero.const_value = ir.tensor(np.zeros_like(zero.const_value.numpy()), name=zero.name)
    context = remove(model, layers=("add6",))
    assert operators(model) == ["Conv", "Relu", "Mul", "Add", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert [v.shape.numpy() for n in model.graph if n.op_type == "Mul" for v in n.inputs[1:]] == [
        (1, 4, 1, 1)
    ]
    assert_same(model, before)
    assert "dropped conv2, conv4 from add6" in context.notes[0]


def test_a_residual_branch_goes_and_the_projection_takes_its_part():
    model = residual(STRAIGHT, projection=True)
    before = model.clone()
    remove(model, layers=(next(n.name for n in model.graph if n.op_type == "Add"),))
    assert operators(model) == ["Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    data = data_of(before, 100, seed=5)
    wanted = list(run(before, data).values())
    found = output_error(list(run(model, data).values()), wanted)
    # Dropping it without a fit is far worse.
    plain = before.clone()
    node = next(n for n in plain.graph if n.op_type == "Add")
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    assert found < 0.5 * output_error(list(run(plain, data).values()), wanted)


def test_a_projection_of_a_sequence_is_exact_where_the_branch_is_linear():
    model = graph(
        f"a = MatMul(x, w1) b = Add(a, b1) c = {STRAIGHT}(b) d = MatMul(c, w2) e = MatMul(x, w3)"
        " f = Add(e, b3) g = Add(f, d) h = Tanh(g) y = MatMul(h, w4)",
        "float[N,4,3] x",
        "float[N,4,2] y",
        w1=(3, 5),
        b1=(5,),
        w2=(5, 6),
        w3=(3, 6),
        b3=(6,),
        w4=(6, 2),
    )
    before = model.clone()
    remove(model, layers=("add6",), ridge=0)
    assert operators(model) == ["MatMul", "Add", "Tanh", "MatMul", "Add"]
    assert_same(model, before)


def test_layers_behind_a_dropped_branch_still_merge():
    model = residual(STRAIGHT, projection=True)
    join = next(n.name for n in model.graph if n.op_type == "Add")
    head = model.clone()
    remove(head, layers=(join,))
    context = remove(model, count=9)
    assert operators(model) in (["Flatten", "Gemm"], ["Conv", "GlobalAveragePool", "Flatten", "Gemm"])
    assert np.isfinite(run(model, data_of(model, 5))["y"]).all()
    assert " to 0 bootstraps" in context.notes[0]


def test_greedy_takes_the_layer_that_is_nearly_linear():
    # The first activation is far from its corner for nearly all inputs, the second is in the middle of it.
    model = graph(
        "h = Gemm<transB=1>(x, w1, b1) r = Relu(h) i = Gemm<transB=1>(r, w2) s = Relu(i)"
        " y = Gemm<transB=1>(s, w3)",
        w1=(6, 3),
        b1=np.full(6, 3, np.float32),
        w2=(6, 6),
        w3=(2, 6),
    )
    names = [n.name for n in model.graph if n.op_type == "Relu"]
    context = remove(model)
    assert "merged gemm0 into gemm2: 12 to 6 bootstraps" in context.notes[0]
    assert [n.name for n in model.graph if n.op_type == "Relu"] == names[1:]


def test_the_tolerance_decides_how_many_go():
    left = {}
    for tolerance in (0.0, 1e-5, 10.0):
        model = mlp()
        model.graph.initializers["b1"].const_value = ir.tensor(np.full(8, 5, np.float32), name="b1")
        context = remove(model, tolerance=tolerance)
        left[tolerance] = operators(model).count("Relu")
        assert "remove-layers: " in context.notes[-1]
    assert left == {0.0: 2, 1e-5: 1, 10.0: 0}


def test_the_error_is_that_of_the_model_as_imported():
    model = mlp()
    source = mlp(STRAIGHT)
    context = context_of(model, source=source)
    again = model.clone()
    RemoveLayers(layers=("relu1",), context=context)(model)
    other = context_of(again)
    RemoveLayers(layers=("relu1",), context=other)(again)
    assert content(model) == content(again)
    assert context.notes != other.notes


def test_layers_behind_are_refitted_unless_told_not_to():
    errors, weights = {}, {}
    for refit in (True, False):
        model = mlp()
        before = model.clone()
        remove(model, layers=("relu1",), refit=refit, ridge=0.003)
        weights[refit] = next(n for n in model.graph if n.name == "gemm4").inputs[1].const_value.numpy()
        data = data_of(before, 120)
        errors[refit] = output_error(list(run(model, data).values()), list(run(before, data).values()))
    np.testing.assert_array_equal(weights[False], before.graph.initializers["w3"].const_value.numpy())
    assert errors[True] < errors[False]


def test_the_same_seed_gives_the_same_model():
    first, second = mlp(), mlp()
    remove(first, count=1)
    remove(second, count=1)
    assert content(first) == content(second)


@pytest.mark.parametrize(
    ("body", "inputs", "outputs", "weights", "node", "reason"),
    [
        (
            "a = Gemm<transB=1>(x, w1) b = Relu(a) c = Gemm<transB=1>(b, w2) y = Concat<axis=1>(b, c)",
            "float[N,3] x",
            "float[N,6] y",
            {"w1": (4, 3), "w2": (2, 4)},
            "relu1",
            "it reaches the graph output y with no linear layer behind it",
        ),
        (
            "a = Gemm<transB=1>(x, w1) b = Hardmax<axis=1>(a) y = Gemm<transB=1>(b, w2)",
            "float[N,3] x",
            "float[N,2] y",
            {"w1": (20, 3), "w2": (2, 20)},
            "gemm0",
            "hardmax1 (Hardmax) is neither element-wise, layout nor pooling",
        ),
        (
            "a = Conv<kernel_shape=[1,1]>(x, w1) b = Relu(a) c = Transpose<perm=[0,1,3,2]>(b)"
            " y = Conv<kernel_shape=[1,1]>(c, w2)",
            "float[N,2,4,4] x",
            "float[N,2,4,4] y",
            {"w1": (4, 2, 1, 1), "w2": (2, 4, 1, 1)},
            "relu1",
            "transpose2 (Transpose) is no window of a convolution",
        ),
        (
            "a = Conv<kernel_shape=[2,2]>(x, w1)"
            " b = AveragePool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(a)"
            " y = Conv<kernel_shape=[1,1]>(b, w2)",
            "float[N,2,4,4] x",
            "float[N,2,2,2] y",
            {"w1": (4, 2, 2, 2), "w2": (2, 4, 1, 1)},
            "conv0",
            "averagepool1 (AveragePool) rounds its output shape up",
        ),
        (
            "a = MatMul(x, w1) b = Relu(a) c = Transpose<perm=[0,2,1]>(b) y = MatMul(c, w2)",
            "float[N,4,3] x",
            "float[N,5,2] y",
            {"w1": (3, 5), "w2": (4, 2)},
            "relu1",
            "matmul3 (MatMul) works along another axis than it",
        ),
        (
            "a = Conv<kernel_shape=[1,1]>(x, w1) b = Relu(a) c = Flatten(b) y = Gemm<transB=1>(c, w2)",
            "float[N,1,65,65] x",
            "float[N,2] y",
            {"w1": (1, 1, 1, 1), "w2": (2, 4225)},
            "relu1",
            "would see 4225 inputs, more than 4096",
        ),
        (
            "a = Gemm<transB=1>(x, w1) b = Relu(a) c = Add(b, z) y = Gemm<transB=1>(c, w2)",
            "float[N,3] x, float[N,4] z",
            "float[N,2] y",
            {"w1": (4, 3), "w2": (2, 4)},
            "gemm0",
            "add2 (Add) depends on 2 tensors: a, z",
        ),
    ],
)
def test_what_cannot_go_and_why(body, inputs, outputs, weights, node, reason):
    model = graph(body, inputs, outputs, **weights)
    text = content(model)
    context = context_of(model, 20)
    with pytest.raises(PipelineError) as error:
        RemoveLayers(layers=(node,), context=context)(model)
    assert reason in error.value.found
    assert error.value.do == "use the node names that `onnx-fhe inspect` prints"
    assert content(model) == text
    sites, _ = find_sites(model, Between(target_opset()))
    if not sites:
        assert RemoveLayers(context=context)(model).modified is False
        assert reason in context.notes[0]
        assert content(model) == text


def test_a_name_that_no_node_has():
    with pytest.raises(PipelineError) as error:
        RemoveLayers(layers=("/relu",), context=context_of(mlp()))(mlp())
    assert error.value.found == "no node of that name"
    assert error.value.allowed == "gemm0, gemm2"


def test_it_needs_calibration_data():
    with pytest.raises(DataError):
        RemoveLayers()(mlp())
    with pytest.raises(DataError, match="more than one sample"):
        RemoveLayers(context=context_of(mlp(), 1))(mlp())


def test_inputs_that_depend_on_each_other_need_no_ridge():
    model = mlp(STRAIGHT)
    before = model.clone()
    data = data_of(model, 120)
    data["x"][:, 2] = data["x"][:, 1]
    RemoveLayers(count=2, ridge=0, context=Context(calibration=data))(model)
    assert_same(model, before, 1e-3)


def test_a_line_is_that_of_least_squares():
    x, y = normal(50, 3), normal(50, 3, seed=1)
    x[:, 2] = 1
    slope, offset = line(x, y, (1,))
    assert slope.shape == offset.shape == (1, 3)
    np.testing.assert_allclose([slope[0, 0], offset[0, 0]], np.polyfit(x[:, 0], y[:, 0], 1), atol=1e-5)
    np.testing.assert_allclose([slope[0, 2], offset[0, 2]], [0, y[:, 2].mean()], atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "remove-layers",
        "remove-layers{count=2 ridge=0.1 refit=false}",
        'remove-layers{layers=["/Relu" conv1] tolerance=0.5}',
    ],
)
def test_the_text_prints_as_it_was(text):
    (found,) = parse_passes(text)
    (again,) = parse_passes(found.to_text())
    assert again == found
    assert again.to_text() == found.to_text()


def test_opt_writes_a_smaller_model_that_runs(tmp_path, capsys):
    model = mlp()
    onnx.save(to_proto(model), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **data_of(model, 120))
    text = 'normalize,remove-layers{layers=["relu1"]}'
    files = ["--calibration", str(tmp_path / "data.npz"), "-o", str(tmp_path / "small.onnx"), "--json"]
    with pytest.raises(SystemExit) as stopped:
        main(["opt", str(tmp_path / "model.onnx"), "-p", text, *files])
    assert stopped.value.code == 0
    assert any("merged gemm0 into gemm2" in note for note in json.loads(capsys.readouterr().out)["notes"])
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, data_of(model, 120))[0].shape == (120, 2)
    assert operators(load(tmp_path / "small.onnx")) == ["Gemm", "Relu", "Gemm"]
