"""The canonical float form: text before and after, same outputs, idempotence, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

from onnx_fhe.ir.errors import PipelineError, UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import Session, run, to_proto
from onnx_fhe.ir.sampling import random_inputs
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.normalize.normalize import Normalize

FOLDER = os.environ.get("ONNX_FHE_MODELS")
MODELS = sorted(Path(FOLDER).glob("*.onnx")) if FOLDER else []


def content(model: ir.Model) -> bytes:
    return to_proto(model).SerializeToString(deterministic=True)


def assert_close(found, expected, tolerance=1e-5):
    for name, array in expected.items():
        scale = max(float(np.abs(array.astype(np.float64)).max(initial=0)), 1e-6)
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance * scale)


def normalized(proto: onnx.ModelProto, samples: int = 4) -> ir.Model:
    """Normalize and check what holds for every model: same outputs, the rules, a truthful second run."""
    model = ir.from_proto(proto)
    before = content(model)
    result = Normalize()(model)
    assert result.modified == (content(model) != before)
    after = content(model)
    assert Normalize()(model).modified is False
    assert content(model) == after
    verify(model)
    onnx.checker.check_model(to_proto(model), full_check=True)
    data = random_inputs(list(proto.graph.input), samples)
    original, found = Session(proto).run(data), Session(model).run(data)
    assert list(found) == [o.name for o in proto.graph.output]
    assert_close(found, original)
    return model


def graph(body: str, inputs="float[N,3] x", outputs="float[N,4] y", **weights) -> onnx.ModelProto:
    proto = parser.parse_model(
        f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}]>\n'
        f"g ({inputs}) => ({outputs}) {{ {body.replace('<>', '')} }}"
    )
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    return proto


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def shape(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [d if isinstance(d, int) else str(d) for d in value.shape.dims]


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def test_no_integer_model():
    model = ir.from_proto(graph("y = Relu(x)", outputs="float[N,3] y"))
    model.metadata_props["onnx_fhe.level"] = "integer"
    with pytest.raises(PipelineError, match="does not run"):
        Normalize()(model)


def test_text_before_and_after():
    proto = graph(
        "a = Identity(x)  h = MatMul(a, w)  s = Add(c, h)  d = Dropout(s)  y = Div(d, two)",
        w=normal(3, 4),
        c=normal(4, seed=1),
        two=np.float32(2),
    )
    model = normalized(proto)
    (gemm,) = model.graph
    assert (gemm.op_type, gemm.name, gemm.outputs[0].name) == ("Gemm", "n1", "y")
    weight, bias = (v.const_value.numpy() for v in gemm.inputs[1:])
    np.testing.assert_allclose(weight, normal(3, 4).T / 2, rtol=1e-6)
    np.testing.assert_allclose(bias, normal(4, seed=1) / 2, rtol=1e-6)
    assert shape(model.graph.inputs[0]) == ["N", 3]
    assert shape(model.graph.outputs[0]) == ["N", 4]


@pytest.mark.parametrize(
    "attributes", ["", "transB = 1", "alpha = 0.5, beta = 2.0", "alpha = 3.0, transB = 1, beta = 0.0"]
)
@pytest.mark.parametrize("bias", [None, (), (1,), (4,), (1, 4)])
def test_gemm_has_one_form(attributes, bias):
    w = normal(4, 3) if "transB" in attributes else normal(3, 4)
    weights = {"w": w} | ({} if bias is None else {"b": normal(*bias)})
    model = normalized(graph(f"y = Gemm<{attributes}>(x, w{'' if bias is None else ', b'})", **weights))
    (gemm,) = model.graph
    assert [shape(v) for v in gemm.inputs[1:]] == [[4, 3], [4]]


def test_gemm_of_a_transposed_input():
    model = normalized(graph("t = Transpose(x)  y = Gemm<transA = 1>(t, w)", w=normal(3, 4)))
    assert "Gemm" in ops(model)


def test_gemm_with_a_computed_bias_or_matrix():
    model = normalized(
        graph("b = Relu(r)  y = Gemm<beta = 2.0>(x, w, b)", "float[N,3] x, float[N,4] r", w=normal(3, 4))
    )
    assert ops(model) == ["Relu", "Mul", "Gemm", "Add"]
    model = normalized(
        graph(
            "y = Gemm<transB = 1, alpha = 2.0>(x, r, b)",
            "float[2,3] x, float[4,3] r",
            "float[2,4] y",
            b=normal(4),
        )
    )
    assert ops(model) == ["Transpose", "MatMul", "Mul", "Add"]
    assert shape(model.graph.inputs[0]) == [2, 3]


def test_weights_that_are_shared_stay_apart():
    proto = graph(
        "a = Gemm<alpha = 2.0>(x, w)  b = Relu(a)  y = Gemm(b, w)", outputs="float[N,3] y", w=normal(3, 3)
    )
    first, _, last = normalized(proto).graph
    np.testing.assert_allclose(first.inputs[1].const_value.numpy(), 2 * last.inputs[1].const_value.numpy())


def test_matmul_of_more_axes_stays_and_takes_factors():
    proto = graph(
        "h = MatMul(x, w)  a = Add(h, b)  m = Mul(a, c)  y = Sub(m, b)",
        "float[N,2,3] x",
        "float[N,2,4] y",
        w=normal(3, 4),
        b=normal(4),
        c=normal(4, seed=2),
    )
    assert ops(normalized(proto)) == ["MatMul", "Add"]


def conv_weights(**extra):
    return {"w": normal(6, 2, 3, 3), "b": normal(6, seed=1)} | extra


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
        'auto_pad = "SAME_LOWER", strides = [2, 3]',
        'auto_pad = "VALID"',
        "pads = [1, 0, 2, 1], strides = [2, 1]",
        "group = 2",
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_conv_attributes_are_explicit(attributes, bias):
    channels = 4 if "group" in attributes else 2
    proto = graph(
        f"y = Conv<{attributes}>(x, w{bias})",
        f"float[N,{channels},7,8] x",
        "float[N,6,H,W] y",
        **conv_weights(),
    )
    (conv,) = normalized(proto).graph
    assert set(conv.attributes) == {"dilations", "group", "kernel_shape", "pads", "strides"}
    assert shape(conv.inputs[2]) == [6]
    assert all(isinstance(d, int) for d in shape(conv.outputs[0])[1:])


def batch_norm_weights(channels: int):
    return {
        "scale": normal(channels, seed=3),
        "shift": normal(channels, seed=4),
        "mean": normal(channels, seed=5),
        "var": np.abs(normal(channels, seed=6)) + 0.1,
    }


BATCH_NORM = "BatchNormalization<epsilon = 0.01>({0}, scale, shift, mean, var)"


def test_batch_normalization_goes_into_conv_and_gemm():
    body = f"h = Conv(x, w)  n = {BATCH_NORM.format('h')}  y = Relu(n)"
    model = normalized(
        graph(body, "float[N,2,5,5] x", "float[N,6,3,3] y", **conv_weights(), **batch_norm_weights(6))
    )
    assert ops(model) == ["Conv", "Relu"]
    body = f"h = MatMul(x, w)  y = {BATCH_NORM.format('h')}"
    assert ops(normalized(graph(body, w=normal(3, 4), **batch_norm_weights(4)))) == ["Gemm"]


def test_batch_normalization_elsewhere_is_a_mul_and_an_add():
    body = f"h = Relu(x)  y = {BATCH_NORM.format('h')}"
    model = normalized(graph(body, "float[N,3,2,2] x", "float[N,3,2,2] y", **batch_norm_weights(3)))
    assert ops(model) == ["Relu", "Mul", "Add"]
    assert [shape(n.inputs[1]) for n in list(model.graph)[1:]] == [[3, 1, 1]] * 2
    # What else reads the convolution must not see it normalized.
    body = f"h = Conv(x, w)  n = {BATCH_NORM.format('h')}  y = Sub(n, h)"
    proto = graph(body, "float[N,2,5,5] x", "float[N,6,3,3] y", **conv_weights(), **batch_norm_weights(6))
    assert ops(normalized(proto)) == ["Conv", "Mul", "Add", "Sub"]


def test_training_mode_is_refused():
    body = "y, m, v = BatchNormalization<training_mode = 1>(x, scale, shift, mean, var)"
    proto = graph(body, outputs="float[N,3] y, float[3] m, float[3] v", **batch_norm_weights(3))
    with pytest.raises(UnsupportedError, match="training mode") as caught:
        Normalize()(ir.from_proto(proto))
    assert (caught.value.where.node, caught.value.where.op) == ("n0", "BatchNormalization")
    assert caught.value.where.pass_name == "normalize"
    proto = graph("y = Dropout(x, r, t)", outputs="float[N,3] y", r=np.float32(0.5), t=np.array(True))
    with pytest.raises(UnsupportedError, match="drops at random"):
        Normalize()(ir.from_proto(proto))


def test_the_mask_of_a_dropout_is_true_everywhere():
    proto = graph("d, m = Dropout(x)  y = Where(m, d, w)", outputs="float[N,3] y", w=np.float32(0))
    assert "Dropout" not in ops(normalized(proto))
    proto = graph("d, m = Dropout(x)  y = Relu(d)", outputs="float[N,3] y")
    assert ops(normalized(proto)) == ["Relu"]


@pytest.mark.parametrize(
    ("body", "constant", "expected"),
    [
        ("h = Gemm(x, w)  y = Mul(h, c)", (4,), ["Gemm"]),
        ("h = Gemm(x, w)  y = Sub(c, h)", (1, 4), ["Gemm"]),
        ("h = Gemm(x, w)  y = Div(h, c)", (), ["Gemm"]),
        ("h = Gemm(x, w)  y = Add(h, c)", (1,), ["Gemm"]),
        # A constant that widens the output, or differs from row to row, is not one for each channel.
        ("h = Gemm(x, w)  y = Add(h, c)", (2, 1, 4), ["Gemm", "Add"]),
        ("h = Relu(x)  y = Sub(c, h)", (3,), ["Relu", "Mul", "Add"]),
        (
            "h = Relu(x)  i = Mul(c, h)  j = Div(i, c)  k = Add(c, j)  y = Sub(k, c)",
            (3,),
            ["Relu", "Mul", "Add"],
        ),
        ("h = Relu(x)  y = Div(c, h)", (3,), ["Relu", "Div"]),
        ("h = Gemm(x, w)  r = Relu(h)  y = Add(r, h)", (4,), ["Gemm", "Relu", "Add"]),
    ],
)
def test_affine_chains(body, constant, expected):
    y = "float[N,3] y" if constant == (3,) else "float[a,N,4] y" if len(constant) == 3 else "float[N,4] y"
    values = np.asarray(np.abs(normal(*constant)) + 0.5, np.float32)
    samples = 1 if len(constant) == 3 else 4  # its output has no batch axis
    proto = graph(body, outputs=y, w=normal(3, 4), c=values)
    if "Div(c" in body:
        proto.graph.node[0].op_type = "Exp"
        expected = ["Exp", "Div"]
    assert ops(normalized(proto, samples)) == expected


def test_convolution_takes_constants_of_its_channels_only():
    proto = graph(
        "h = Conv(x, w, b)  y = Mul(h, c)",
        "float[N,2,5,5] x",
        "float[N,6,3,3] y",
        **conv_weights(c=normal(6, 1, 1)),
    )
    assert ops(normalized(proto)) == ["Conv"]
    proto = graph(
        "h = Conv(x, w, b)  y = Mul(h, c)",
        "float[N,2,5,5] x",
        "float[N,6,3,3] y",
        **conv_weights(c=normal(3)),
    )
    assert ops(normalized(proto)) == ["Conv", "Mul"]


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_floating_point_types(dtype):
    kind = np.dtype(np.float16 if dtype == "float16" else np.float64)
    proto = graph(
        "h = MatMul(x, w)  r = Relu(h)  y = Div(r, c)",
        f"{dtype}[N,3] x",
        f"{dtype}[N,4] y",
        w=normal(3, 4).astype(kind),
        c=np.asarray(2, kind),
    )
    model = normalized(proto)
    assert ops(model) == ["Gemm", "Relu", "Mul"]
    assert {v.dtype.numpy() for v in model.graph.initializers.values()} == {kind}


def test_division_by_zero_and_integers_stay():
    proto = graph("y = Div(x, z)", outputs="float[N,3] y", z=np.float32([1, 0, 2]))
    model = ir.from_proto(proto)
    Normalize()(model)
    assert ops(model) == ["Div"]
    proto = graph("y = Div(x, z)", "int64[N,3] x", "int64[N,3] y", z=np.int64([2, 3, 4]))
    whole = ["Cast", "Round", "Cast"]  # what is quantized, or decrypted, is a float
    assert ops(normalized(proto)) == [*whole, "Div", *whole]


def test_zero_padding_goes_into_the_convolution():
    pads = np.int64([0, 0, 1, 2, 0, 0, 2, 0])
    body = "p = Pad(x, pads)  y = Conv<pads = [1, 0, 0, 1]>(p, w)"
    proto = graph(body, "float[N,2,5,5] x", "float[N,6,H,W] y", pads=pads, **conv_weights())
    (conv,) = normalized(proto).graph
    assert list(conv.attributes["pads"].as_ints()) == [2, 2, 2, 1]
    for mode in ('<mode = "edge">', '<mode = "reflect">'):
        body = f"p = Pad{mode}(x, pads)  y = Conv(p, w)"
        proto = graph(body, "float[N,2,5,5] x", "float[N,6,H,W] y", pads=pads, **conv_weights())
        assert ops(normalized(proto)) == ["Pad", "Conv"]
    proto = graph(
        "p = Pad(x, pads, v)  y = Conv(p, w)",
        "float[N,2,5,5] x",
        "float[N,6,H,W] y",
        pads=pads,
        v=np.float32(1),
        **conv_weights(),
    )
    assert ops(normalized(proto)) == ["Pad", "Conv"]


PREAMBLE = """
    s = Shape(x)  zero = Constant<value_int = 0>()  n = Gather(s, zero)  one = Constant<value_ints = [0]>()
    nn = Unsqueeze(n, one)  rest = Constant<value_ints = [-1]>()  to = Concat<axis = 0>(nn, rest)
    y = Reshape(x, to)
"""


@pytest.mark.parametrize("batch", ["N", "1", "batch_size"])
def test_a_computed_reshape_becomes_constant(batch):
    model = normalized(
        graph(PREAMBLE, f"float[{batch},2,3] x", f"float[{batch},6] y"), 1 if batch == "1" else 4
    )
    assert ops(model) == ["Reshape"]
    assert shape(model.graph.inputs[0]) == ["N", 2, 3]
    assert shape(model.graph.outputs[0]) == ["N", 6]
    x = {"x": normal(5, 2, 3)}
    np.testing.assert_array_equal(run(model, x)["y"], x["x"].reshape(5, 6))


@pytest.mark.parametrize("target", [[1, 6], [1, -1], [-1, 6], [0, -1], [1, 2, 3, 1]])
def test_a_static_batch_of_one_becomes_free(target):
    proto = graph(
        "r = Reshape(x, to)  y = Relu(r)",
        "float[1,2,3] x",
        "float[1,R] y" if len(target) < 3 else "float[1,2,3,1] y",
        to=np.int64(target),
    )
    model = normalized(proto, 1)
    assert shape(model.graph.outputs[0])[0] == "N"
    x = normal(5, 2, 3)
    found = run(model, {"x": x})["y"]
    np.testing.assert_array_equal(found, np.maximum(x, 0).reshape(5, *found.shape[1:]))


@pytest.mark.parametrize(
    "body",
    ["y = Softmax<axis = 0>(x)", "m = ReduceMean<keepdims = 1>(x)  y = Sub(x, m)"],
)
def test_what_is_done_to_a_batch_of_one_is_done_to_each_sample(body):
    proto = graph(body, "float[1,6] x", "float[1,6] y")
    model = normalized(proto, 1)
    assert shape(model.graph.inputs[0]) == shape(model.graph.outputs[0]) == ["N", 6]
    x = normal(5, 6)
    np.testing.assert_allclose(run(model, {"x": x})["y"], run(proto, {"x": x})["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("body", ["y = Softmax<axis = 0>(x)", "m = ReduceMean<axes = [0]>(x)  y = Sub(x, m)"])
def test_a_model_that_mixes_its_samples_keeps_its_batch(body):
    context = Context()
    model = ir.from_proto(graph(body, "float[N,6] x", "float[N,6] y"))
    model.opset_imports[""] = 17
    Normalize().with_context(context)(model)
    assert shape(model.graph.inputs[0]) == [1, 6]
    assert any("batch" in note for note in context.notes)


def test_another_free_axis_is_refused():
    with pytest.raises(UnsupportedError, match="without a fixed size") as caught:
        Normalize()(ir.from_proto(graph("y = Relu(x)", "float[N,3,H] x", "float[N,3,H] y")))
    assert "(N, 3, H)" in caught.value.found


def test_what_is_constant_is_computed_and_what_is_unused_goes():
    proto = graph(
        "t = Transpose(w)  u = Mul(t, two)  y = MatMul(x, u)  dead = Sin(x)",
        w=normal(4, 3),
        two=np.float32(2),
        unused=normal(7),
    )
    model = normalized(proto)
    assert ops(model) == ["Gemm"]
    assert len(model.graph.initializers) == 2


def test_outputs_keep_their_names_where_nothing_stands_between():
    model = normalized(
        graph("y = Identity(x)  h = Relu(x)  z = Identity(h)", outputs="float[N,3] y, float[N,3] z")
    )
    assert ops(model) == ["Identity", "Relu"]
    model = normalized(graph("y = Relu(x)  z = Identity(y)", outputs="float[N,3] y, float[N,3] z"))
    assert ops(model) == ["Relu", "Identity"]


def test_classification_heads_stay():
    proto = graph(
        "h = Gemm(x, w)  p = Softmax(h)  y = ArgMax<axis = -1>(p)", outputs="int64[N,1] y", w=normal(3, 4)
    )
    assert ops(normalized(proto))[0] == "Gemm"


def test_the_zoo(small):
    path_free = load_proto(small.proto)
    model = ir.from_proto(path_free)
    assert Normalize()(model).modified
    verify(model)
    after = content(model)
    assert not Normalize()(model).modified
    assert content(model) == after
    assert_close(run(model, small.data), run(small.proto, small.data))
    assert all(shape(i)[0] == "N" for i in model.graph.inputs)
    assert all(shape(o)[0] == "N" for o in model.graph.outputs)
    unwanted = {
        "Constant",
        "Identity",
        "Dropout",
        "BatchNormalization",
        "Sub" if "sub" not in small.name else "",
    }
    assert not unwanted & set(ops(model)) - {""}


def load_proto(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnx_fhe.ir.convert import convert

    return convert(proto)


@pytest.mark.skipif(not MODELS, reason="ONNX_FHE_MODELS names no folder with models")
@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_real_files(path):
    original, model = load(path), load(path)
    Normalize()(model)
    verify(model)
    after = content(model)
    assert not Normalize()(model).modified
    assert content(model) == after
    data = random_inputs(list(to_proto(original).graph.input), 8)
    assert_close(run(model, data), run(original, data))


STEPS = (
    "gemm",
    "matmul",
    "bn",
    "mul",
    "sub",
    "rsub",
    "div",
    "add_first",
    "relu",
    "dropout",
    "identity",
    "tanh",
    "skip",
    "flatten",
)


@st.composite
def networks(draw) -> onnx.ModelProto:
    """A chain of dense or convolutional steps with what exporters put between them."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    batch = draw(st.sampled_from(["N", 1, "batch"]))
    conv = draw(st.booleans())
    width, spatial = draw(st.integers(1, 4)), [4, 5] if conv else []
    inputs = [batch, width, *spatial]
    nodes, weights = [], []
    value = "x"

    def weight(array) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array, np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(op, *operands, **attributes) -> str:
        name = f"n{len(nodes)}"
        nodes.append(helper.make_node(op, operands, [f"v{len(nodes)}"], name=name, **attributes))
        return nodes[-1].output[0]

    def factor() -> str:
        size = draw(
            st.sampled_from([(), (1,), (width, *[1] * len(spatial)), (1, width, *[1] * len(spatial))])
        )
        return weight(random.uniform(0.5, 2, size) * random.choice([-1, 1], size))

    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=7)):
        if step in ("gemm", "matmul"):
            out = draw(st.integers(1, 4))
            if spatial:
                pads = draw(st.sampled_from([{}, {"auto_pad": "SAME_UPPER"}, {"pads": [1, 0, 0, 1]}]))
                if not pads and min(spatial) < 2:
                    continue
                operands = [value, weight(random.normal(size=(out, width, 2, 2)))]
                if step == "gemm":
                    operands.append(weight(random.normal(size=out)))
                value = node("Conv", *operands, **pads)
                spatial = spatial if pads else [s - 1 for s in spatial]
            elif step == "matmul":
                value = node("MatMul", value, weight(random.normal(size=(width, out))))
            else:
                transposed = draw(st.booleans())
                size = (out, width) if transposed else (width, out)
                bias = draw(st.sampled_from([(), (1, out), (out,)]))
                value = node(
                    "Gemm",
                    value,
                    weight(random.normal(size=size)),
                    weight(random.normal(size=bias)),
                    transB=int(transposed),
                    alpha=draw(st.sampled_from([1.0, 0.5])),
                    beta=draw(st.sampled_from([1.0, 2.0])),
                )
            width = out
        elif step == "bn":
            statistics = [weight(random.uniform(0.5, 2, width)) for _ in range(4)]
            value = node("BatchNormalization", value, *statistics)
        elif step in ("mul", "sub", "div"):
            value = node(step.capitalize(), value, factor())
        elif step == "rsub":
            value = node("Sub", factor(), value)
        elif step == "add_first":
            value = node("Add", factor(), value)
        elif step == "skip":
            value = node("Add", value, node("Relu", value))
        elif step == "flatten":
            target = numpy_helper.from_array(np.int64([0 if batch != 1 else 1, -1]), f"t{len(nodes)}")
            weights.append(target)
            value = node("Reshape", value, target.name)
            width, spatial = width * int(np.prod(spatial)), []
        else:
            value = node(step.capitalize(), value)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)
    y = helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [batch, width, *spatial])
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights) if nodes else None,
        opset_imports=[helper.make_opsetid("", target_opset())],
        ir_version=target_ir_version(),
    )


@settings(max_examples=60, deadline=None)
@given(networks())
def test_random_networks(proto):
    if not proto.graph.node:
        return
    model = normalized(proto, 1 if proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value else 3)
    assert shape(model.graph.inputs[0])[0] == "N"
    assert not {"Sub", "Div", "Dropout", "BatchNormalization"} & set(ops(model))
    assert "Identity" not in ops(model) or len(model.graph) == 1
