"""Cross-layer equalization and power-of-two scales: options of quantize."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.analysis.outputs.divergence import output_error, outputs
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.ir import runtime
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.ir.level import Level
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.quantize.equalize import equalize
from onnx_fhe.testing.texts import load


def network(activation, layout="", conv=False, residual=False, matmul=False):
    """Two layers with something between, its neurons of very different size."""
    body, value = [], "x"
    if conv:
        body.append("h = Conv <kernel_shape=[3, 3], pads=[1, 1, 1, 1]> (x, w1, b1)")
    elif matmul:
        body += ["m = MatMul (x, w1)", "h = Add (m, b1)"]
    else:
        body.append("h = Gemm <transB=1> (x, w1, b1)")
    body.append(f"r = {activation} (h)")
    value = "r"
    for i, op in enumerate(layout.split("|") if layout else []):
        body.append(f"l{i} = {op.format(value)}")
        value = f"l{i}"
    body.append(f"y = Gemm <transB=1> ({value}, w2, b2)")
    if residual:
        body[-1] = f"s = Gemm <transB=1> ({value}, w2, b2)"
        body += ["t = Gemm <transB=1> (r, w2, b2)", "y = Add (s, t)"]
    shape = "N, 2, 4, 4" if conv else "N, 4"
    inputs = 6 * 16 if conv and "Average" not in layout else 6
    first = "6, 2, 3, 3" if conv else "4, 6" if matmul else "6, 4"
    head = f"graph (float[{shape}] x) => (float[N, 3] y)\n<float[{first}] w1, float[6] b1,"
    return f"{head} float[3, {inputs}] w2, float[3] b2>\n{{\n" + "\n".join(body) + "\n}"


def filled(text, seed):
    """The model of a text with random weights."""
    random = np.random.default_rng(seed)
    sizes = {}
    for name in ("w1", "b1", "w2", "b2"):
        shape = text.split(f"] {name}")[0].rsplit("[", 1)[1]
        sizes[name] = [int(d) for d in shape.split(",")]
    for name, shape in sizes.items():
        values = random.normal(size=shape)
        if name in {"w1", "b1"}:
            large = np.exp(random.normal(0, 1.5, 6))
            along = [1, -1] if name == "w1" and shape == [4, 6] else [-1] + [1] * (len(shape) - 1)
            values = values * large.reshape(along)
        dims = ", ".join(map(str, shape))
        listed = ", ".join(f"{v:.6f}" for v in values.reshape(-1))
        text = text.replace(f"float[{dims}] {name}", f"float[{dims}] {name} = {{{listed}}}")
    return load(text, Level.FLOAT)


CASES = {
    "dense": {"activation": "Relu"},
    "leaky": {"activation": "LeakyRelu <alpha=0.1>"},
    "matmul": {"activation": "Relu", "matmul": True},
    "flattened convolution": {"activation": "Relu", "conv": True, "layout": "Flatten ({})"},
    "transposed": {
        "activation": "Relu",
        "conv": True,
        "layout": "Transpose <perm=[0, 2, 3, 1]> ({})|Flatten ({})",
    },
    "pooled": {"activation": "Relu", "conv": True, "layout": "GlobalAveragePool ({})|Flatten ({})"},
    "two readers": {"activation": "Relu", "residual": True},
}


def data(model, seed=1, count=200):
    shape = [count, *(int(d) for d in list(model.graph.inputs[0].shape)[1:])]
    return {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("case", CASES)
def test_outputs_stay_and_sizes_meet(case):
    @settings(max_examples=5)
    @given(st.integers(0, 10**6))
    def check(seed):
        model = filled(network(**CASES[case]), seed)
        given_data = data(model)
        before = runtime.Session(model).run(given_data)["y"]
        first = np.abs(linear_of(next(iter(model.graph))).matrix()).max(axis=1)
        shared = case == "two readers"  # one initializer that two layers read cannot be scaled for one neuron
        assert equalize(model, find_regions(model)) == (0 if shared else 1)
        after = runtime.Session(model).run(given_data)["y"]
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
        now = np.abs(linear_of(next(iter(model.graph))).matrix()).max(axis=1)
        assert np.array_equal(now, first) if shared else now.max() / now.min() < first.max() / first.min()

    check()


@pytest.mark.parametrize("activation", ["Sigmoid", "Clip", "Selu"])
def test_neurons_whose_activation_is_not_homogeneous_stay(activation):
    text = network(activation).replace("Clip (h)", "Clip (h, zero, six)")
    text = text.replace("float[3] b2", "float[3] b2, float zero = {0}, float six = {6}")
    model = filled(text, 3)
    assert equalize(model, find_regions(model)) == 0


QUANTIZE = "quantize{{weights=4 activations=3 inputs=6 {}}}"


def error(model, options):
    context = Context(calibration=data(model))
    found = PassManager.parse("normalize," + QUANTIZE.format(options)).run(model, context).model
    return output_error(outputs(found, data(model, 2)), outputs(model, data(model, 2)))


def test_it_helps_where_neurons_share_a_scale():
    plain, equal = [], []
    for seed in range(6):
        model = filled(network("Relu"), seed)
        plain.append(error(model, "per-neuron=false"))
        equal.append(error(model, "per-neuron=false equalize=true"))
    assert np.mean(equal) < 0.9 * np.mean(plain)


@pytest.mark.parametrize("calibration", ["mse", "min-max", "percentile"])
@pytest.mark.parametrize("per_neuron", ["true", "false"])
def test_every_scale_is_a_power_of_two(calibration, per_neuron):
    model = filled(network("Relu", conv=True, layout="Flatten ({})"), 0)
    options = f"scales=power-of-two calibration={calibration} per-neuron={per_neuron}"
    context = Context(calibration=data(model))
    found = PassManager.parse("normalize," + QUANTIZE.format(options)).run(model, context).model
    scales = [constant_of(n.inputs[1]) for n in found.graph if n.op_type == "DequantizeLinear"]
    scales += [constant_of(v) for n in found.graph if n.op_type == "Mul" for v in n.inputs]
    scales = [s for s in scales if s is not None]
    assert len(scales) >= 4
    for scale in scales:
        assert np.array_equal(np.exp2(np.rint(np.log2(scale))), scale)
    assert error(model, options) < 0.3


def test_scales_that_are_powers_of_two_lose_more_than_free_ones():
    errors = {s: [] for s in ("free", "power-of-two")}
    for seed in range(4):
        model = filled(network("Relu"), seed)
        for kind, found in errors.items():
            found.append(error(model, f"scales={kind}"))
    assert np.mean(errors["free"]) < np.mean(errors["power-of-two"]) < 10 * np.mean(errors["free"])
