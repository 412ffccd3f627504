"""Quantizing float models: where quantizers go, what integers they hold, widths, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.ir import load
from onnx_fhe.ir.errors import DataError, PipelineError, UnsupportedError
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.runtime import Session
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.passes.quantize.activations import Quantizer, fit_quantizer
from onnx_fhe.passes.quantize.quantize import Quantize
from onnx_fhe.passes.quantize.squares import squared_errors
from onnx_fhe.passes.quantize.unseen import Unseen
from onnx_fhe.passes.quantize.weights import fit_scales, largest_code, moment, round_weights
from onnx_fhe.testing import pipelines

PLAIN = (
    "weights=3 activations=3 inputs=4 calibration=min-max method=nearest adapt=0 refit=false per-neuron=false"
)


def uniform(*shape: int, seed: int = 0, low: float = -1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 1, shape).astype(np.float32)


def codes_of(model, node: str) -> np.ndarray:
    """The integer weights of a layer, a row for each output."""
    (layer,) = [n for n in model.graph if n.name == node]
    codes = pipelines.constant(layer.inputs[1].producer(), 0)
    return codes.T if layer.op_type == "MatMul" else codes


def error(model, reference, data) -> float:
    """Mean squared error of the output over its variance."""
    a, b = pipelines.outputs(model, data), pipelines.outputs(reference, data)
    return float(((a - b) ** 2).mean() / b.var())


def test_text_before_and_after():
    w0 = np.float32([[1.5, -0.5], [0.25, 0.75]])
    model = pipelines.model(
        "(float[N,2] x) => (float[N,1] y) { z = Gemm<transB = 1>(x, w0, b0) a = Relu(z)"
        " y = Gemm<transB = 1>(a, w1, b1) }",
        w0=w0,
        b0=np.float32([0.5, 0]),
        w1=np.float32([[-3, 1]]),
        b1=np.float32([0.25]),
    )
    data = {"x": np.float32([[-0.5, 0.25], [1.0, -0.5], [0.5, 1.0]])}
    (quantize,) = parse_passes(f"quantize{{{PLAIN}}}")
    assert quantize.with_context(Context(calibration=data))(model).modified
    assert pipelines.ops(model) == [
        *("QuantizeLinear", "Clip", "DequantizeLinear", "DequantizeLinear", "Gemm"),
        *("Relu", "QuantizeLinear", "Clip", "DequantizeLinear", "DequantizeLinear", "Gemm"),
    ]
    np.testing.assert_array_equal(codes_of(model, "n0"), [[3, -1], [1, 3]])
    np.testing.assert_allclose(
        pipelines.constant(pipelines.node(model, "DequantizeLinear", 1), 1), [0.5, 0.25]
    )
    np.testing.assert_array_equal(codes_of(model, "n2"), [[-3, 1]])
    # 4-bit inputs from -0.5 to 1: 15 steps of 0.1, zero at 5. 3-bit activations from 0 to 2.25: 7 steps.
    quantizers = [n for n in model.graph if n.op_type == "QuantizeLinear"]
    np.testing.assert_allclose([pipelines.constant(q, 1) for q in quantizers], [0.1, 2.25 / 7], rtol=1e-6)
    assert [int(pipelines.constant(q, 2)) for q in quantizers] == [5, 0]
    assert [int(pipelines.constant(c, 2)) for c in model.graph if c.op_type == "Clip"] == [15, 7]
    # The bias stays as it is without a refit.
    np.testing.assert_array_equal(pipelines.constant(pipelines.node(model, "Gemm"), 2), [0.5, 0])
    assert level_of(model) is Level.QDQ


def test_a_scale_per_neuron_is_absorbed_by_the_next_layer():
    model = pipelines.imported(pipelines.dense(4, 3, 2, seed=1))
    data = {"input": uniform(200, 4)}
    model = pipelines.apply(model, f"normalize,quantize{{{PLAIN.replace('per-neuron=false', '')}}}", data)
    (gain,) = [n for n in model.graph if n.op_type == "Mul"]
    assert gain.outputs[0].consumers()[0].op_type == "QuantizeLinear"
    inverse = pipelines.constant(gain, 1).reshape(-1)
    assert len(np.unique(inverse)) == 3
    hidden = Session(model, ["a0"]).run(data)["a0"]
    np.testing.assert_allclose((hidden * inverse).max(axis=0), 7, rtol=0.15)  # each neuron fills its range


def test_no_clip_at_the_storage_width():
    data = {"input": uniform(50, 4)}
    model = pipelines.apply(
        pipelines.imported(pipelines.dense(4, 3, 2)),
        "normalize,quantize{weights=8 activations=8 inputs=8}",
        data,
    )
    assert "Clip" not in pipelines.ops(model)
    assert np.abs(codes_of(model, "/0")).max() <= 127


def test_added_tensors_share_a_scale(zoo):
    proto = zoo.residual_add()
    model = pipelines.apply(pipelines.imported(proto), "normalize,quantize{weights=4}", zoo.samples(proto))
    (join,) = [n for n in model.graph if n.op_type == "Add" and all(v.const_value is None for v in n.inputs)]
    makers = [v.producer() for v in join.inputs]
    assert [m.op_type for m in makers] == ["DequantizeLinear", "DequantizeLinear"]
    assert len({float(pipelines.constant(m, 1)) for m in makers}) == 1


def test_weights_of_one_bit_are_signs_and_activations_of_one_bit_have_two_values(digits_mlp):
    data = {"input": digits_mlp.calibration_data["input"][:100]}
    given = pipelines.apply(pipelines.imported(onnx.load(digits_mlp.model)), "normalize", data)
    model = pipelines.apply(given, "quantize{weights=1 activations=1 inputs=1}", data)
    for name in [n.name for n in model.graph if n.op_type == "Gemm"]:
        assert set(np.unique(codes_of(model, name))) <= {-1, 0, 1}
        assert (
            np.abs(codes_of(model, name)) == np.abs(codes_of(model, name)).max(axis=1, keepdims=True)
        ).all()
    for name, values in Session(model, pipelines.activations(model)).run(data).items():
        assert set(np.unique(values)) == {0, 1}, name


def test_a_dead_row_stays_zero_at_one_bit():
    assert (round_weights(np.zeros((1, 4)), np.zeros(1), 1) == 0).all()
    assert set(np.unique(round_weights(uniform(3, 9), np.ones(3), 1))) == {-1.0, 1.0}


@pytest.mark.parametrize("bits", range(1, 9))
def test_widths(bits, zoo):
    proto = zoo.mlp()
    data = zoo.samples(proto)
    normal = pipelines.apply(pipelines.imported(proto), "normalize", data)
    model = pipelines.apply(normal, f"quantize{{weights={bits} activations={bits} inputs={bits}}}", data)
    for layer in [n for n in model.graph if n.op_type == "Gemm"]:
        assert np.abs(codes_of(model, layer.name)).max() <= largest_code(bits)
    wide = {"input": 3 * uniform(300, 6, seed=1)}
    for values in Session(model, pipelines.activations(model)).run(wide).values():
        assert values.min() >= 0
        assert values.max() <= 2**bits - 1
    # Scales hold values that nobody saw: what was seen pays a little for it.
    assert error(model, normal, data) < {1: 1.0, 2: 0.2, 3: 0.08}.get(bits, 0.36 / 4 ** (bits - 2))


@pytest.mark.parametrize("calibration", ["min-max", "percentile", "mse"])
def test_every_calibration(calibration, digits_mlp):
    data = digits_mlp.calibration_data
    given = pipelines.apply(pipelines.imported(onnx.load(digits_mlp.model)), "normalize", data)
    text = f"quantize{{weights=4 activations=4 inputs=4 calibration={calibration}}}"
    assert error(pipelines.apply(given, text, data), given, digits_mlp.test_data) < 0.05


@given(seed=st.integers(0, 10**6), bits=st.integers(1, 8), signed=st.booleans(), channels=st.integers(1, 4))
@settings(max_examples=40)
def test_quantizers_fit_what_they_saw(seed, bits, signed, channels):
    random = np.random.default_rng(seed)
    values = random.normal(0, random.uniform(0.1, 10, channels), (400, channels))
    values = values if signed else np.abs(values)
    one = {m: fit_quantizer(values, bits, m, 98.0, True) for m in ("min-max", "percentile", "mse")}
    for method, quantizer in one.items():
        assert quantizer.scale.shape == (channels,)
        assert (quantizer.scale > 0).all()
        assert 0 <= quantizer.zero_point <= quantizer.top == 2**bits - 1
        assert signed or quantizer.zero_point == 0, method
    beyond = Unseen.of(values, values)
    errors = {
        m: float((((q.apply(values) - values) ** 2).mean(axis=0) + beyond.loss(*q.span)).sum())
        for m, q in one.items()
    }
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert (one["percentile"].scale <= one["min-max"].scale * 1.001).all() or bits == 1 or signed
    if not signed:  # nothing is cut off
        np.testing.assert_allclose(one["min-max"].apply(values).max(axis=0), values.max(axis=0))


@pytest.mark.parametrize(("rows", "channels"), [(1, 3), (200, 1), (200, 2), (1000, 40)])
@pytest.mark.parametrize("zero", [-3, 0, 5, 20])
def test_several_scales_at_once_lose_what_each_loses_alone(rows, channels, zero):
    random = np.random.default_rng(rows)
    values, scales = random.normal(size=(rows, channels)), random.uniform(0.01, 0.5, (45, channels))
    scales[7] = 0
    alone = [((Quantizer(s, zero, 4).apply(values) - values) ** 2).mean(axis=0) for s in scales]
    np.testing.assert_array_equal(squared_errors(values, scales, zero, 15), alone)


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse"])
def test_a_channel_that_is_always_zero_gets_a_harmless_scale(method):
    values = np.stack([np.zeros(50), np.linspace(0, 4, 50)], axis=1)
    scale = fit_quantizer(values, 3, method, 99.9, True).scale
    assert (scale > 0).all()
    assert scale[0] <= scale[1] * 1.001  # it must not blow up what comes later
    assert (fit_quantizer(np.zeros((9, 2)), 3, method, 99.9, True).scale > 0).all()


@given(seed=st.integers(0, 10**6), bits=st.integers(2, 6))
@settings(max_examples=25)
def test_weight_scales_are_the_best_of_the_candidates(seed, bits):
    random = np.random.default_rng(seed)
    weights, rows = random.normal(size=(3, 5)), random.normal(size=(60, 5)) @ random.normal(size=(5, 5))
    candidates = np.abs(weights).max(axis=1) / largest_code(bits) * np.linspace(0.3, 1, 9)[:, None]
    found = fit_scales(weights, [moment(rows)], candidates, bits)

    def loss(scale: np.ndarray) -> np.ndarray:
        return ((rows @ (round_weights(weights, scale, bits) * scale[:, None] - weights).T) ** 2).sum(axis=0)

    np.testing.assert_allclose(loss(found.scale), np.min([loss(c) for c in candidates], axis=0))


def test_widths_of_single_layers(zoo):
    proto = zoo.mlp()
    data = zoo.samples(proto)
    given = pipelines.apply(pipelines.imported(proto), "normalize", data)
    first, second, third = (n.name for n in given.graph if n.op_type == "Gemm")
    layers = f'layers={{"{first}"={{weights=2 inputs=3 activations=2}} "{third}"={{weights=8}}}}'
    model = pipelines.apply(given, f"quantize{{weights=4 activations=6 inputs=6 {layers}}}", data)
    assert [np.abs(codes_of(model, n)).max() for n in (first, second, third)] <= [1, 7, 127]
    assert np.abs(codes_of(model, third)).max() > 7
    found = [int(pipelines.constant(n, 2)) for n in model.graph if n.op_type == "Clip"]
    assert found == [2**3 - 1, 2**2 - 1, 2**6 - 1]


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ('{"/9"={weights=3}}', "no encrypted node '/9'"),
        ('{"/0"={weights=9}}', "'layers[/0].weights' does not take this value"),
        ('{"/0"={weights=2.5}}', "'layers[/0].weights' does not take this value"),
        ('{"/0"={weights=auto}}', "takes no weights=auto"),
        ('{"/0"={bits=3}}', "no option 'bits'"),
        ('{"/0"={max-bits=3}}', "takes no max-bits=3"),
    ],
)
def test_wrong_layers_are_refused(layers, found):
    model = pipelines.imported(pipelines.dense(3, 3, 2))
    with pytest.raises(PipelineError) as refused:
        pipelines.apply(model, f"normalize,quantize{{weights=3 layers={layers}}}", {"input": uniform(20, 3)})
    assert found in str(refused.value)
    assert "allowed:" in str(refused.value)


def test_wrong_layers_from_python_are_refused():
    for widths in ({"weights": 9}, {"weights": 2.5}, {"weights": True}, {"bits": 3}):
        with pytest.raises(PipelineError):
            Quantize(
                weights=3, layers={"/0": widths}, context=Context(calibration={"input": uniform(20, 3)})
            )(pipelines.apply(pipelines.imported(pipelines.dense(3, 3, 2)), "normalize"))


def test_wrong_widths_are_refused():
    for text in (
        "weights=9",
        "weights=0",
        "activations=12",
        "inputs=0",
        "calibration=entropy",
        "percentile=20",
    ):
        with pytest.raises(PipelineError):
            pipelines.apply(
                pipelines.imported(pipelines.dense(3, 3, 2)), f"quantize{{{text}}}", {"input": uniform(20, 3)}
            )


def test_no_calibration_data():
    with pytest.raises(DataError, match="needs calibration data") as refused:
        pipelines.apply(pipelines.imported(pipelines.dense(3, 3, 2)), "normalize,quantize")
    assert "--calibration" in str(refused.value)


HEAD = "(float[N,4] x) => (float[N,2] y) { z = Gemm<transB = 1>(x, w0, b0)"
WEIGHTS = {"w0": uniform(4, 4), "b0": uniform(4), "w1": uniform(2, 4), "b1": uniform(2)}


@pytest.mark.parametrize(
    ("body", "node", "found"),
    [
        ("a = Softmax<axis = 1>(z)", "'n1' (Softmax)", "Softmax of 1 encrypted tensor"),
        ("a = LRN<size = 3>(z)", "'n1' (LRN)", "LRN of 1 encrypted tensor"),
        ("t = Hardmax(z) a = Sub(z, t)", "'n1' (Hardmax)", "comparison of every pair"),
        ("a = LpNormalization<axis = 1>(z)", "'n1' (LpNormalization)", "it divides by"),
    ],
)
def test_what_cannot_be_encrypted_is_refused_by_name(body, node, found):
    model = pipelines.model(f"{HEAD} {body} y = Gemm<transB = 1>(a, w1, b1) }}", **WEIGHTS)
    with pytest.raises(UnsupportedError) as refused:
        pipelines.apply(model, "quantize", {"x": uniform(20, 4)})
    assert node in str(refused.value)
    assert found in str(refused.value)
    assert refused.value.do


def test_nothing_to_encrypt_is_refused():
    model = pipelines.model("(float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    with pytest.raises(UnsupportedError, match="nothing to run encrypted"):
        pipelines.apply(model, "quantize", {"x": uniform(20, 4)})


def test_another_level_is_refused(zoo):
    proto = zoo.mlp()
    text = "normalize,quantize{weights=3},lower-to-integer"
    model = pipelines.apply(pipelines.imported(proto), text, zoo.samples(proto))
    with pytest.raises(PipelineError, match="does not run on a model of the integer level"):
        pipelines.apply(model, "quantize", zoo.samples(proto))


def test_what_is_quantized_already_is_left_alone(zoo):
    proto = zoo.mlp()
    once = PassManager.parse("normalize,quantize{weights=3}").run(
        pipelines.imported(proto), Context(calibration=zoo.samples(proto))
    )
    assert not PassManager.parse("normalize,import-qat,quantize").run(once.model).modified


def test_softmax_at_the_end_is_the_clients(zoo):
    proto = zoo.softmax_end()
    model = pipelines.apply(pipelines.imported(proto), "normalize,quantize{weights=4}", zoo.samples(proto))
    assert pipelines.ops(model)[-2:] == ["Gemm", "Softmax"]


def test_the_refit_removes_the_mean_error(digits_mlp):
    data = digits_mlp.calibration_data
    given = pipelines.apply(pipelines.imported(onnx.load(digits_mlp.model)), "normalize", data)
    wanted = pipelines.outputs(given, data)
    bias = {
        refit: np.abs(
            pipelines.outputs(
                pipelines.apply(given, f"quantize{{weights=2 refit={refit}}}", data), data
            ).mean(axis=0)
            - wanted.mean(axis=0)
        ).max()
        for refit in ("true", "false")
    }
    assert bias["true"] < 1e-3
    assert bias["false"] > 10 * bias["true"]


def test_more_bits_are_nearer_to_the_float_model(digits_mlp):
    data = digits_mlp.calibration_data
    given = pipelines.apply(pipelines.imported(onnx.load(digits_mlp.model)), "normalize", data)
    errors = [
        error(
            pipelines.apply(given, f"quantize{{weights={w} inputs=8 activations=8}}", data),
            given,
            digits_mlp.test_data,
        )
        for w in (2, 3, 5, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_auto_takes_fewer_bits_where_the_tolerance_is_larger(digits_mlp):
    data = {"input": digits_mlp.calibration_data["input"][:150]}
    given = pipelines.apply(pipelines.imported(onnx.load(digits_mlp.model)), "normalize", data)
    widths = []
    for tolerance in (0.2, 0.001):
        notes: list[str] = []
        model = pipelines.apply(given, f"quantize{{tolerance={tolerance} max-bits=5}}", data, notes=notes)
        widths.append(max(np.abs(codes_of(model, n.name)).max() for n in model.graph if n.op_type == "Gemm"))
        assert "of the variance" in notes[-1]
    assert widths[0] < widths[1] <= 15


def test_scales_are_not_absorbed_by_a_convolution_that_mixes_them():
    # A Reshape turns six neurons into two channels of three positions: a weight there meets three scales.
    model = pipelines.model(
        "(float[N,4] x) => (float[N,2,2] y) { z = Gemm<transB = 1>(x, w0, b0) a = Relu(z) r = Reshape(a, s)"
        " y = Conv<pads = [0, 0], strides = [1], dilations = [1], group = 1, kernel_shape = [2]>(r, w1, b1)}",
        w0=uniform(6, 4) * np.float32([[1], [5], [0.1], [1], [1], [9]]),
        b0=uniform(6),
        s=np.int64([0, 2, 3]),
        w1=uniform(2, 2, 2),
        b1=uniform(2),
    )
    data = {"x": uniform(300, 4)}
    quantized = pipelines.apply(model.clone(), "quantize{weights=8 activations=8 inputs=8}", data)
    assert error(quantized, model, data) < 1e-3


@pytest.mark.parametrize("include", [0, 1])
def test_scales_pass_through_pooling_that_counts_its_padding(include):
    model = pipelines.model(
        "(float[N,1,4,4] x) => (float[N,2] y) {z = Conv<pads = [1,1,1,1], strides = [1,1], dilations = [1,1],"
        " group = 1, kernel_shape = [3,3]>(x, w0, b0) a = Relu(z) p = AveragePool<kernel_shape = [3,3],"
        f" pads = [1,1,1,1], strides = [2,2], count_include_pad = {include}>(a) f = Flatten(p)"
        " y = Gemm<transB = 1>(f, w1, b1) }",
        w0=uniform(3, 1, 3, 3) * np.float32([1, 8, 0.2]).reshape(3, 1, 1, 1),
        b0=uniform(3),
        w1=uniform(2, 12),
        b1=uniform(2),
    )
    data = {"x": uniform(200, 1, 4, 4)}
    quantized = pipelines.apply(model.clone(), "quantize{weights=8 activations=8 inputs=8}", data)
    assert error(quantized, model, data) < 1e-3
    integer = pipelines.apply(quantized, "lower-to-integer", data)
    assert pipelines.off_by_more_than_one(quantized, integer, data)[1] == 0
    np.testing.assert_allclose(
        pipelines.outputs(integer, data), pipelines.outputs(quantized, data), atol=1e-4
    )


def test_an_accumulator_read_by_two_layers_is_absorbed_once():
    # One layer reads the accumulator itself, another a Flatten of it: each has a quantizer of its own.
    model = pipelines.model(
        "(float[N,1,3,3] x) => (float[N,2] y) {z = Conv<pads = [0,0,0,0], strides = [1,1], dilations = [1,1],"
        " group = 1, kernel_shape = [2,2]>(x, w0, b0) u = Conv<pads = [0,0,0,0], strides = [1,1],"
        " dilations = [1,1], group = 1, kernel_shape = [2,2]>(z, w1, b1) f = Flatten(z) g = Flatten(u)"
        " v = Gemm<transB = 1>(f, w2, b2) y = Add(v, g) }",
        w0=uniform(3, 1, 2, 2) * np.float32([1, 8, 0.2]).reshape(3, 1, 1, 1),
        b0=uniform(3),
        w1=uniform(2, 3, 2, 2),
        b1=uniform(2),
        w2=uniform(2, 12),
        b2=uniform(2),
    )
    data = {"x": uniform(200, 1, 3, 3)}
    assert (
        error(pipelines.apply(model.clone(), "quantize{weights=8 activations=8 inputs=8}", data), model, data)
        < 1e-3
    )


@pytest.mark.parametrize(
    ("mixing", "size"),
    [
        ("t = Transpose<perm = [0, 2, 3, 1]>({a}) p = GlobalAveragePool(t)", 2),
        ("p = ReduceMean<keepdims = 1>({a}, one)", 6),
        ("t = Transpose<perm = [0, 2, 1, 3]>({a}) p = AveragePool<kernel_shape = [2, 1]>(t)", 12),
    ],
)
@pytest.mark.parametrize("activation", ["", "r = Relu(z)"])
def test_averages_over_channels_are_over_one_scale(mixing, size, activation):
    """Accumulators, and activations with a scale per neuron, may not be summed across their channels."""
    layers = (
        "(float[N,1,3,4] x) => (float[N,2] y) { z = Conv<pads = [0,0,0,0], strides = [1,1],"
        f" dilations = [1,1], group = 1, kernel_shape = [2,2]>(x, w0, b0) {activation}"
        f" {mixing.format(a='r' if activation else 'z')}"
        " f = Flatten(p) y = Gemm<transB = 1>(f, w1, b1) }"
    )
    model = pipelines.model(
        layers,
        w0=uniform(3, 1, 2, 2) * np.float32([1, 8, 0.2]).reshape(3, 1, 1, 1),
        b0=uniform(3),
        w1=uniform(2, size),
        b1=uniform(2),
        one=np.int64([1]),
    )
    data = {"x": uniform(200, 1, 3, 4)}
    quantized = pipelines.apply(model.clone(), "quantize{weights=8 activations=8 inputs=8}", data)
    assert error(quantized, model, data) < 1e-3
    integer = pipelines.apply(quantized, "lower-to-integer", data)
    assert pipelines.off_by_more_than_one(quantized, integer, data)[1] == 0
    np.testing.assert_allclose(
        pipelines.outputs(integer, data), pipelines.outputs(quantized, data), atol=1e-3
    )


def test_small_norms_save_a_decomposition_level(digits_mlp):
    """Weights of 6 bits have norms that the bootstraps before them pay for; a limit takes that back."""
    context = Context(calibration=digits_mlp.calibration_data)
    costs = {}
    for options in ("", " max-weight-norm=15", " max-weight-norm=15 method=nearest scales=power-of-two"):
        text = f"normalize,quantize{{weights=6{options}}},lower-to-integer"
        model = PassManager.parse(text).run(load.load(digits_mlp.model), context).model
        norms = [np.sqrt((x.matrix() ** 2).sum(axis=1)).max() for n in model.graph if (x := linear_of(n))]
        # The first layer reads fresh encryptions, which bear any weights.
        assert (max(norms[1:]) <= 15) == bool(options)
        done = PassManager.parse("fuse-tlu,insert-rounding{bits=4}").run(model, context).model
        costs[options] = estimate(done)
    light, heavy = costs[" max-weight-norm=15"], costs[""]
    assert light.bootstraps == heavy.bootstraps
    assert light.complexity < 0.8 * heavy.complexity
