"""From quantized operators to integer ones: exact, without zero points, with the client's part cut off."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.errors import LimitError, PipelineError, UnsupportedError
from onnx_fhe.ir.integer_editing import IntegerEditor
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.lower.lower_to_integer import LowerToInteger
from onnx_fhe.passes.lower.views import common_unit, whole_multiples
from onnx_fhe.testing import pipelines

Q = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
"""8-bit quantization of ``x``."""
DENSE = f"{Q} w = DequantizeLinear<axis = 0>(wq, ws) y = Gemm<transB = 1>(d, w, b)"
S, Z = np.float32(0.1), np.uint8(128)


def integers(*shape: int, seed: int = 0, limit: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit + 1, shape).astype(np.int8)


def inputs(*shape: int, seed: int = 0, scale: float = 12.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-scale, scale, shape).astype(np.float32)


def dense(body: str = DENSE, ends: str = "(float[N,3] x) => (float[N,2] y)", **weights: object):
    given = {"wq": integers(2, 3), "ws": np.float32([0.5, 0.25]), "b": np.float32([1, -2]), "s": S, "z": Z}
    return pipelines.model(f"{ends} {{ {body} }}", **(given | weights))


def lowered(model):
    """Lower a copy; it must compute the same as before."""
    result = LowerToInteger()(model.clone())
    assert result.modified
    assert level_of(result.model) is Level.INTEGER
    return result.model


def assert_same(before, after, data, tolerance: float = 1e-5) -> None:
    wanted, found = run(before, data), run(after, data)
    assert list(wanted) == list(found)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance * np.abs(array).max())


def test_text_before_and_after():
    model = dense()
    after = lowered(model)
    assert pipelines.ops(after) == [
        *("QuantizeLinear", "Cast", "Add", "Encrypt"),
        "Gemm",
        *("Decrypt", "Mul", "Add"),
    ]
    gemm = pipelines.node(after, "Gemm")
    assert gemm.name == pipelines.node(model, "Gemm").name
    assert len(gemm.inputs) == 2
    np.testing.assert_array_equal(pipelines.constant(gemm, 1), integers(2, 3))
    assert pipelines.constant(pipelines.node(after, "Add"), 1).item() == -128
    np.testing.assert_allclose(pipelines.constant(pipelines.node(after, "Mul"), 1), [[0.05, 0.025]])
    np.testing.assert_array_equal(pipelines.constant(pipelines.node(after, "Add", 1), 1), [[1, -2]])
    encrypt = pipelines.node(after, "Encrypt")
    assert [encrypt.attributes[k].as_int() for k in ("low", "high")] == [-128, 127]
    decrypt = pipelines.node(after, "Decrypt")
    reach = integers(2, 3).astype(int)
    positive, negative = np.clip(reach, 0, None).sum(axis=1), np.clip(reach, None, 0).sum(axis=1)
    assert decrypt.attributes["high"].as_int() == (127 * positive - 128 * negative).max()
    assert decrypt.attributes["low"].as_int() == (-128 * positive + 127 * negative).min()
    verify(after)
    assert_same(model, after, {"x": inputs(200, 3)})


def test_a_clip_narrows_what_is_encrypted():
    body = DENSE.replace("d = DequantizeLinear(q,", "c = Clip(q, lo, hi) d = DequantizeLinear(c,")
    model = dense(body, lo=np.uint8(3), hi=np.uint8(10), z=np.uint8(5))
    after = lowered(model)
    encrypt = pipelines.node(after, "Encrypt")
    assert [encrypt.attributes[k].as_int() for k in ("low", "high")] == [-2, 5]
    assert_same(model, after, {"x": inputs(50, 3, scale=1)})


def test_signed_storage():
    model = dense(z=np.int8(-3))
    after = lowered(model)
    encrypt = pipelines.node(after, "Encrypt")
    assert [encrypt.attributes[k].as_int() for k in ("low", "high")] == [-125, 130]
    assert_same(model, after, {"x": inputs(50, 3)})


def test_a_bias_stored_as_integers_is_kept():
    body = DENSE.replace("y = Gemm", "c = DequantizeLinear<axis = 0>(bq, bs) y = Gemm").replace(
        "w, b)", "w, c)"
    )
    model = dense(body, bq=np.int32([100, -50]), bs=np.float32([0.5, 0.25]))
    assert_same(model, lowered(model), {"x": inputs(50, 3)})


def test_one_scale_for_all_weights():
    model = dense(ws=np.float32(0.5))
    assert_same(model, lowered(model), {"x": inputs(50, 3)})


@pytest.mark.parametrize(
    ("body", "weights", "what", "do"),
    [
        (
            f"{Q} y = Gemm<transB = 1>(d, w, b)",
            {"w": np.float32(integers(2, 3))},
            "not quantized",
            "quantize pass",
        ),
        (
            DENSE.replace("(wq, ws)", "(wq, ws, wz)"),
            {"wz": np.int8([0, 4])},
            "have a zero point",
            "symmetrically",
        ),
        (
            "w = DequantizeLinear<axis = 0>(wq, ws) y = Gemm<transB = 1>(x, w, b)",
            {},
            "without a quantizer",
            "missing quantizer",
        ),
        (
            DENSE.replace("<axis = 0>(wq, ws)", "<axis = 1>(wq, ws3)"),
            {"ws3": np.float32([1, 2, 3])},
            "not one for each output",
            "per output channel",
        ),
        (
            DENSE.replace("y = Gemm", "a = Gemm")
            + " e = QuantizeLinear(a, s, z) f = DequantizeLinear(e, s, z) o = Add(f, h)"
            " m = Gather<axis = 1>(o, i) v = DequantizeLinear<axis = 0>(vq, ws)"
            " y = Gemm<transB = 1>(m, v, b)",
            {"h": np.float32([0.3, 0]), "i": np.int64([1, 0]), "vq": integers(2, 2)},
            "the input of this linear operator has an offset",
            "quantize the float model",
        ),
        (
            DENSE.replace("y = Gemm", "c = ReduceMax<keepdims = 0>(d, axes) y = Gemm").replace(
                "w, b)", "w, c)"
            ),
            {"axes": np.int64([0, 1])},
            "bias of this linear operator is not constant",
            "store the bias",
        ),
    ],
)
def test_what_cannot_be_lowered_is_refused(body, weights, what, do):
    with pytest.raises(UnsupportedError) as refused:
        LowerToInteger()(dense(body, **weights))
    message = str(refused.value)
    assert what in message
    assert do in message
    assert "(Gemm)" in message
    assert "'n" in message


def test_nothing_to_lower():
    model = pipelines.model(f"(float[N,3] x) => (float[N,3] d) {{ {Q} }}", s=S, z=Z)
    with pytest.raises(UnsupportedError, match="nothing to run encrypted"):
        LowerToInteger()(model)


def test_other_levels_are_refused():
    with pytest.raises(PipelineError, match="does not run on a model of the float level"):
        LowerToInteger()(pipelines.model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }"))
    with pytest.raises(PipelineError, match="does not run on a model of the integer level"):
        LowerToInteger()(lowered(dense()))


@pytest.mark.parametrize("width", [1, 100, 500])
def test_an_extreme_matmul_is_exact(width):
    """255 x 127 in every product: where onnxruntime's MatMulInteger would saturate."""
    signs = np.where(np.arange(4)[:, None] % 2 == np.arange(width) % 2, 127, -127).astype(np.int8)
    weights = np.concatenate([np.full((1, width), 127, np.int8), np.full((1, width), -127, np.int8), signs])
    body = DENSE.replace("b)", "b6)")
    ends = f"(float[N,{width}] x) => (float[N,6] y)"
    one = np.ones(6, np.float32)
    model = dense(body, ends, wq=weights, ws=one, b6=0 * one, s=np.float32(1), z=np.uint8(0))
    after = lowered(model)
    verify(after)
    x = np.random.default_rng(0).integers(0, 256, (40, width))
    x[:20] = np.random.default_rng(1).choice([0, 255], (20, width))
    x[0] = 255
    found = run(after, {"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(found.astype(np.int64), x @ weights.astype(np.int64).T)


@pytest.mark.parametrize("group", [1, 2])
def test_an_extreme_convolution_is_exact(group):
    random = np.random.default_rng(group)
    weights = random.choice([-127, 127], (4, 8 // group, 3, 3)).astype(np.int8)
    weights[0] = 127
    body = f"""{Q} w = DequantizeLinear<axis = 0>(wq, ws)
        y = Conv<pads = [1,0,1,0], strides = [1,2], dilations = [1,1], group = {group},
        kernel_shape = [3,3]>(d, w, b)"""
    ends = "(float[N,8,6,7] x) => (float[N,4,6,3] y)"
    one = np.ones(4, np.float32)
    model = dense(body, ends, wq=weights, ws=one, b=0 * one, s=np.float32(1), z=np.uint8(0))
    after = lowered(model)
    verify(after)
    x = random.choice([0, 1, 254, 255], (6, 8, 6, 7)).astype(np.int64)
    x[0] = 255
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, :, ::2]
    windows = windows.reshape(6, group, 8 // group, 6, 3, 3, 3)
    wanted = np.einsum(
        "ngchwij,gocij->ngohw", windows, weights.astype(np.int64).reshape(group, -1, 8 // group, 3, 3)
    )
    found = run(after, {"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(found.astype(np.int64), wanted.reshape(6, 4, 6, 3))


def test_sums_that_float32_cannot_hold_are_refused():
    one = np.ones(2, np.float32)
    model = dense(
        DENSE,
        "(float[N,600] x) => (float[N,2] y)",
        wq=np.full((2, 600), 127, np.int8),
        ws=one,
        b=one,
        z=np.uint8(0),
    )
    with pytest.raises(LimitError) as refused:
        verify(lowered(model))
    assert "below 2^24" in str(refused.value)


POOLS = st.fixed_dictionaries(
    {
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 2)),
        "pads": st.tuples(*[st.integers(0, 2)] * 4),
        "ceil": st.integers(0, 1),
        "include": st.integers(0, 1),
        "zero": st.sampled_from([0, 7, 200]),
    }
)


def pooled(operator: str, zero: int = 7, classes: int = 3):
    body = f"{Q} p = {operator} f = Flatten(p) {DENSE[len(Q) :].replace('(d,', '(f,')}"
    ends = f"(float[N,2,5,4] x) => (float[N,{classes}] y)"
    shapes = pipelines.model(f"(float[N,2,5,4] x) => (float[N,n] f) {{ {body.split(' w =')[0]} }}", s=S, z=Z)
    size = int(shapes.graph.outputs[0].shape[1]) if isinstance(shapes.graph.outputs[0].shape[1], int) else 0
    size = size or run(shapes, {"x": inputs(1, 2, 5, 4)})["f"].shape[1]
    one = np.ones(classes, np.float32)
    return dense(body, ends, wq=integers(classes, size, limit=7), ws=one, b=one, z=np.uint8(zero))


@given(POOLS)
@settings(max_examples=30)
def test_average_pooling_is_a_sum(options):
    kernel = options["kernel"]
    pads = [min(p, k - 1) for p, k in zip(options["pads"], (*kernel, *kernel), strict=True)]
    model = pooled(
        f"AveragePool<kernel_shape = {list(kernel)}, strides = {list(options['strides'])}, pads = {pads},"
        f" ceil_mode = {options['ceil']}, count_include_pad = {options['include']}>(d)",
        options["zero"],
    )
    after = lowered(model)
    verify(after)
    assert "AveragePool" not in pipelines.ops(after)
    assert_same(model, after, {"x": inputs(30, 2, 5, 4)})


@pytest.mark.parametrize(
    "operator",
    [
        "GlobalAveragePool(d)",
        'AveragePool<kernel_shape = [2,2], auto_pad = "SAME_UPPER", strides = [2,2]>(d)',
        'AveragePool<kernel_shape = [2,3], auto_pad = "SAME_LOWER", strides = [2,2]>(d)',
        "AveragePool<kernel_shape = [2,2], dilations = [2,1]>(d)",
        "ReduceMean<keepdims = 1>(d, axes)",
        "ReduceSum<keepdims = 1>(d, axes)",
    ],
)
def test_other_pooling(operator):
    body = f"{Q} p = {operator} f = Flatten(p) {DENSE[len(Q) :].replace('(d,', '(f,')}"
    head = pipelines.model(
        f"(float[N,2,5,4] x) => (float[N,n] f) {{ {body.split(' w =')[0]} }}", s=S, z=Z, axes=np.int64([2, 3])
    )
    size = run(head, {"x": inputs(1, 2, 5, 4)})["f"].shape[1]
    model = dense(
        body, "(float[N,2,5,4] x) => (float[N,2] y)", wq=integers(2, size, limit=7), axes=np.int64([2, 3])
    )
    after = lowered(model)
    verify(after)
    assert not {"AveragePool", "GlobalAveragePool", "ReduceMean"} & set(pipelines.ops(after))
    assert_same(model, after, {"x": inputs(30, 2, 5, 4)})


SIDES = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear<axis = 0>(wq, ws)
    a = Gemm<transB = 1>(d, w, b) r = Relu(a) h = Sigmoid(r) q2 = QuantizeLinear(r, s2, z2)
    d2 = DequantizeLinear(q2, s2, z2) w2 = DequantizeLinear<axis = 0>(wq2, ws)
    c = Gemm<transB = 1>(d2, w2, b)"""


def test_the_client_gets_what_it_reads_of_the_hidden_layers():
    """A function of the hidden layer, the activations themselves and the quantized input leave as outputs."""
    model = dense(
        f"{SIDES} y = Add(c, d2) k = Mul(d, d)",
        "(float[N,3] x) => (float[N,2] y, float[N,2] h, float[N,2] d2, float[N,3] k)",
        s2=np.float32(0.5),
        z2=np.uint8(0),
        wq2=integers(2, 2, seed=1),
    )
    after = lowered(model)
    verify(after)
    assert_same(model, after, {"x": inputs(40, 3)})
    # The input is the client's own: nobody encrypts it to decrypt it again.
    decrypted = [n.inputs[0].producer().op_type for n in after.graph if n.op_type == "Decrypt"]
    assert "Encrypt" not in decrypted
    assert len(decrypted) == 3
    fused = pipelines.apply(after, "fuse-tlu", {"x": inputs(200, 3)})
    assert_same(model, fused, {"x": inputs(40, 3)}, tolerance=1e-4)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("ratio", [1.0, 3.0, 1 / 3, 0.4, 64.0])
def test_sums_of_tensors_with_different_scales(op, ratio):
    model = dense(
        f"""{Q} w = DequantizeLinear<axis = 0>(wq, ws) a = Gemm<transB = 1>(d, w, b)
        v = DequantizeLinear<axis = 0>(vq, vs) c = Gemm<transB = 1>(d, v, b) y = {op}(a, c)""",
        vq=integers(2, 3, seed=1),
        vs=np.float32([0.5 * ratio, 0.25 / ratio]),
    )
    after = lowered(model)
    verify(after)
    assert_same(model, after, {"x": inputs(40, 3)})


def test_one_number_a_sample_that_gets_a_factor_for_each_channel():
    edit = IntegerEditor(dense())
    (value,) = edit.model.graph.inputs
    value.shape = ir.Shape(["N", 1, 4])
    factors = np.float32([1, 2, 3]).reshape(1, 3, 1)
    for made in (edit.scaled(value, factors, "a"), edit.shifted(value, factors, "b")):
        assert list(made.shape) == ["N", 3, 4]


positive = st.floats(1e-4, 1e4)


@given(st.lists(positive, min_size=1, max_size=4), st.lists(positive, min_size=4, max_size=4))
def test_a_common_unit_is_as_near_as_it_says(first, second):
    x, y = np.array(first), np.array(second[: len(first)])
    common = common_unit(x, y)
    assert (np.rint(common.a) == common.a).all()
    assert (np.rint(common.b) == common.b).all()
    assert min(np.abs(common.a).min(), np.abs(common.b).min()) >= 1
    np.testing.assert_allclose(common.b * common.scale, y, rtol=1e-9)
    off = np.abs(common.a * common.scale / x - 1).max()
    assert off <= max(common.error * (1 + 1e-9), 1.1e-5)
    # Where it is more than CLOSE a note says so; it is never more than half a step of 1/32.
    assert common.error <= 0.016


@given(positive, st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_a_common_unit_of_fractions_is_exact(scale, p, q, negative):
    common = common_unit(np.array([-scale if negative else scale]), np.array([scale * p / q]))
    assert common.error == 0
    assert abs(common.a[0]) * p == pytest.approx(common.b[0] * q)
    assert (common.a[0] < 0) == negative


@given(positive, st.lists(st.sampled_from([1, 2, 3, 4, 6, 9]), min_size=2, max_size=6))
def test_windows_of_different_size_get_one_scale(scale, counts):
    scales = np.float32(scale) / np.float32(counts)
    found = whole_multiples(scales)
    assert found is not None
    whole, unit = found
    assert (whole == np.rint(whole)).all()
    assert whole.max() <= 36
    np.testing.assert_allclose(whole * unit, scales, rtol=1e-5)


def test_scales_without_a_common_unit():
    assert whole_multiples(np.array([1.0, np.pi])) is None
    assert whole_multiples(np.array([0.0, 0.0])) is None


def test_no_zero_point_is_left_between_encrypt_and_decrypt(zoo):
    proto = zoo.residual_sub()
    model = pipelines.apply(
        pipelines.imported(proto), "normalize,quantize{weights=4},lower-to-integer", zoo.samples(proto)
    )
    assert "DequantizeLinear" not in pipelines.ops(model)
    for node in model.graph:
        if node.op_type in {"Gemm", "Conv"}:
            assert len(node.inputs) == 2
            weights = pipelines.constant(node, 1)
            assert (weights == np.rint(weights)).all()
    assert sum(n.domain == DOMAIN for n in model.graph) == 2


def test_an_average_over_different_scales_takes_near_multiples():
    """A quantized model of another tool may ask for it; quantize puts a quantizer in front."""
    body = f"""{Q} v = DequantizeLinear<axis = 0>(vq, vs) a = Gemm<transB = 1>(d, v, b)
        p = ReduceMean(a, axes) q1 = QuantizeLinear(p, s, z) d1 = DequantizeLinear(q1, s, z)
        w = DequantizeLinear<axis = 0>(wq, ws) y = Gemm<transB = 1>(d1, w, b)"""
    given = {"vq": integers(2, 3), "wq": integers(2, 1), "axes": np.int64([1])}
    data = {"x": inputs(40, 3)}
    commensurate = dense(body, vs=np.float32([0.5, 1.5]), **given)
    assert_same(commensurate, lowered(commensurate), data)
    model = dense(body, vs=np.float32([0.5, np.pi]), **given)
    # A step more or less of the second quantizer, here and there.
    wanted, found = run(model, data)["y"], run(lowered(model), data)["y"]
    steps = np.abs(found - wanted) / (0.1 * np.abs(integers(2, 1)[:, 0] * np.float32([0.5, 0.25])))
    assert steps.max() < 1.01
    assert (steps > 0.01).mean() < 0.2


def test_features_with_scales_of_their_own_take_near_multiples():
    given = {"s3": np.float32([0.1, 0.2, 0.1 * np.pi]), "z3": np.uint8([128, 120, 130])}
    body = DENSE.replace("(q, s, z)", "<axis = 1>(q, s3, z3)").replace("(x, s, z)", "<axis = 1>(x, s3, z3)")
    model = dense(body, **given)
    assert_same(model, lowered(model), {"x": inputs(50, 3)}, tolerance=1e-3)
