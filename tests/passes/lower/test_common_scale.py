"""Added branches of very different scales: exact in float32, and as good as the coarser branch is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.lower.lower_to_integer import LowerToInteger
from onnx_fhe.testing import check_network, pipelines, random_network

QUANTIZED = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
S, Z = np.float32(0.1), np.uint8(128)


def branches(scales: list[np.ndarray], width: int = 16, extra: str = ""):
    """Layers on one input, with weight scales of their own for each of 3 channels, added up."""
    body, weights = [QUANTIZED], {"s": S, "z": Z}
    random = np.random.default_rng(0)
    for i, scale in enumerate(scales):
        weights[f"w{i}q"] = random.integers(-127, 128, (3, width)).astype(np.int8)
        weights[f"w{i}s"] = np.asarray(scale, np.float32)
        body.append(f"w{i} = DequantizeLinear<axis = 0>(w{i}q, w{i}s) y{i} = Gemm<transB = 1>(d, w{i})")
    total = "y0"
    for i in range(1, len(scales)):
        body.append(f"t{i} = Add({total}, y{i})")
        total = f"t{i}"
    text = f"(float[N,{width}] x) => (float[N,3] y) {{ {' '.join(body)} {extra} y = Identity({total}) }}"
    return pipelines.model(text, **weights), random.uniform(-12, 12, (200, width)).astype(np.float32)


def lost(model, data) -> np.ndarray:
    """Share of each channel's variance that lowering loses; what it gives is verified."""
    lowered = LowerToInteger()(model.clone()).model
    verify(lowered)
    (wanted,), (found,) = (run(m, {"x": data}).values() for m in (model, lowered))
    return ((found - wanted).var(axis=0) / wanted.var(axis=0)).reshape(-1)


@given(exponents=st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=2, max_size=4))
@settings(max_examples=40)
def test_sums_of_any_scales_are_exact_and_follow_the_coarser_branch(exponents):
    model, data = branches([10.0 ** np.array(e) for e in exponents])
    assert lost(model, data).max() < 1e-3


def test_multipliers_that_were_made_to_fit_are_exact_and_nothing_else_is_told():
    model, _ = branches([np.float32([1.0, 1.37, 2.9]), np.float32([1e5, 1e5, 1e5])], width=256)
    context = Context()
    LowerToInteger().with_context(context)(model)
    assert not [n for n in context.notes if "multipliers" in n]


def test_a_finer_branch_stays_for_whoever_else_reads_it():
    scales = [np.full(3, 1e3), np.full(3, 1e-4)]
    model, data = branches(scales, extra="other = Relu(y1)")
    model.graph.outputs.append(next(n for n in model.graph if n.op_type == "Relu").outputs[0])
    lowered = LowerToInteger()(model.clone()).model
    wanted, found = run(model, {"x": data}), run(lowered, {"x": data})
    np.testing.assert_allclose(found["other"], wanted["other"], rtol=1e-5, atol=1e-6)
    assert ((found["y"] - wanted["y"]).var() / wanted["y"].var()) < 1e-4


def test_one_number_that_is_added_to_every_channel():
    """The finer tensor has one channel, and no scale of its own for each of the others."""
    text = (
        f"(float[N,16] x) => (float[N,3] y) {{ {QUANTIZED} w0 = DequantizeLinear<axis = 0>(w0q, w0s)"
        " w1 = DequantizeLinear<axis = 0>(w1q, w1s) a = Gemm<transB = 1>(d, w0) b = Gemm<transB = 1>(d, w1)"
        " y = Add(a, b) }"
    )
    random = np.random.default_rng(0)
    weights = {
        "w0q": random.integers(-127, 128, (3, 16)).astype(np.int8),
        "w0s": np.float32([1, 1e2, 1e4]),
        "w1q": random.integers(-127, 128, (1, 16)).astype(np.int8),
        "s": S,
        "z": Z,
    }
    data = random.uniform(-12, 12, (100, 16)).astype(np.float32)
    for size in (1e-6, 1.0, 1e6):
        assert lost(pipelines.model(text, **weights, w1s=np.float32([size])), data).max() < 1e-2


def test_what_the_client_encrypts_is_left_out_where_it_is_too_small_to_count():
    text = (
        f"(float[N,3] x) => (float[N,3] y) {{ {QUANTIZED} w = DequantizeLinear<axis = 0>(wq, ws)"
        " t = Gemm<transB = 1>(d, w) y = Add(t, d) }"
    )
    weights = {"wq": np.eye(3, dtype=np.int8) * 127, "ws": np.full(3, 1e6, np.float32), "s": S, "z": Z}
    model = pipelines.model(text, **weights)
    assert lost(model, np.random.default_rng(0).uniform(-12, 12, (50, 3)).astype(np.float32)).max() < 1e-6


@pytest.mark.parametrize("size", [1.0, 1e5])
def test_a_branch_that_never_varies_does_not_set_the_unit(size):
    """A dead branch, through weights of any size: what is added to it keeps its precision."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(3, 4)).astype(np.float32),
        "dead": (random.normal(size=(3, 4)) * size).astype(np.float32),
        "b": (random.normal(size=3) * size).astype(np.float32),
        "last": random.normal(size=(2, 3)).astype(np.float32),
    }
    model = pipelines.model(
        "(float[N,4] x, float[N,4] c) => (float[N,2] y) { h = Relu(c) a = Gemm<transB = 1>(x, w)"
        " e = Gemm<transB = 1>(h, dead, b) t = Add(a, e) r = Tanh(t) y = Gemm<transB = 1>(r, last) }",
        **weights,
    )
    # The branch puts out its bias plus a constant; the bias takes that back, as a network's own would.
    held = np.full((300, 4), 0.5, np.float32)
    constant = weights["dead"].astype(np.float64) @ held[0]
    model.graph.initializers["b"].const_value = (
        pipelines.model(
            "(float[N,1] x) => (float[N,1] y) { y = Add(x, b) }", b=(-constant).astype(np.float32)
        )
        .graph.initializers["b"]
        .const_value
    )
    data = {"x": random.normal(size=(300, 4)).astype(np.float32), "c": held}
    text = "quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"
    result = PassManager.parse(text).run(model, Context(calibration=data)).model
    verify(result)
    (wanted,), (found,) = (run(m, data).values() for m in (model, result))
    assert (1 - (found - wanted).var(axis=0) / wanted.var(axis=0)).min() > 0.97


@pytest.mark.parametrize(
    ("seed", "pipeline"), [(10261, "balanced"), (10265, "accurate"), (10305, "accurate")]
)
def test_random_networks_that_were_refused(seed, pipeline):
    assert check_network(random_network(seed), pipeline).category == "good"
