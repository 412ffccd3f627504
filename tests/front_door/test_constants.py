"""Outputs that never vary are exact, whatever makes them constant and whatever the pipeline quantizes to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import onnx_fhe
from onnx_fhe.constants import FLOAT_SUM_SHARE, settle_constants
from onnx_fhe.ir.runtime import Session
from onnx_fhe.testing import pipelines

PIPELINES = {
    "per neuron": "quantize{weights=4 activations=5}",
    "per tensor": "quantize{weights=4 activations=5 per-neuron=false}",
    "as rounded": "quantize{weights=3 activations=3 inputs=3 method=nearest refit=false adapt=0}",
    "ranges": "quantize{weights=3 activations=4 calibration=min-max refit=false adapt=0 per-neuron=false}",
    "powers": "quantize{weights=4 activations=5 scales=power-of-two}",
}
TABLES = "lower-to-integer,fuse-tlu"
ENDS = {
    "": "y = Identity(s)",
    "mean": "y = ReduceMean<keepdims = 1>(s, last)",
    "beside": "y = Concat<axis = 1>(s, z)",
    "added": "y = Add(s, z)",
    "scaled": "y = Mul(s, half)",
    "largest": "y = Max(s, z)",
}


@st.composite
def networks(draw: st.DrawFn):
    """Two layers; some neurons or all are constant: no weights, never active, always saturated."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    activation = draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Softplus", "Identity"]))
    k, c = random.normal(0, 0.6, (5, 3)), random.normal(0, 0.5, 5)
    w, b = random.normal(0, 0.6, (2, 5)), random.normal(size=2) * 10.0 ** draw(st.integers(-2, 2))
    why = draw(st.sampled_from(["output", "outputs", "inside", "saturated", "feature", "everything"]))
    if why in ("output", "outputs"):
        w[: 1 if why == "output" else 2] = 0
    elif why == "inside":
        k[:] = 0
    elif why == "saturated":
        c[:] = np.where(c > 0, 100, -100)
    elif why == "everything":
        w[:], k[:] = 0, 0
    used = draw(st.sampled_from(list(ENDS)))
    behind = draw(st.sampled_from(["Relu", "Sigmoid", "Softplus", "Identity"]))
    body = (
        f"h = Gemm<transB = 1>(x, k, c) a = {activation}(h) z = Gemm<transB = 1>(a, w, b)"
        f" s = {behind}(z) {ENDS[used]}"
    )
    given = {"k": k, "c": c, "w": w, "b": b}
    arrays = {n: np.float32(a) for n, a in given.items()}
    if used == "mean":
        arrays["last"] = np.int64([1])
    if used == "scaled":
        arrays["half"] = np.float32([[0.5, 0.3]])
    data = random.normal(size=(140, 3)).astype(np.float32)
    if why == "feature":
        data[:, 1] = 2.5
    return pipelines.text(f"(float[N,3] x) => (float[N,M] y) {{ {body} }}", **arrays), data


def assert_constants(model, data: np.ndarray, pipeline: str) -> None:
    network = pipelines.imported(model)
    wanted = pipelines.outputs(network, {"x": data})
    calibration, test = {"x": data[:100]}, {"x": data[100:]}
    program = onnx_fhe.compile(
        network, calibration, pipeline, backend="reference", accept_loss=True, self_test=0
    )
    found = program.run(test).outputs["y"]
    level = np.abs(wanted).max(axis=0)
    constant = np.ptp(wanted, axis=0) <= FLOAT_SUM_SHARE * level
    off = np.abs(found - wanted[100:]).max(axis=0)
    assert (off[constant] <= 2 * FLOAT_SUM_SHARE * level[constant]).all(), (off / level)[constant]


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, deadline=None, suppress_health_check=QUIET)
@given(networks(), st.sampled_from(list(PIPELINES)))
def test_constants_are_exact(network, name):
    assert_constants(*network, f"{PIPELINES[name]},{TABLES}")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=3, deadline=None, suppress_health_check=QUIET)
@given(networks(), st.sampled_from(["balanced", "accurate"]))
def test_constants_of_presets_are_exact(network, preset):
    assert_constants(*network, preset)


POOLED = (
    "(float[N,2,4,4] x) => ({ends}) {{ h = Conv(x, u, c) i = Relu(h) a = Conv<pads = [1, 1, 1, 1]>(i, k, c)"
    " r = Softplus(a) p = AveragePool<kernel_shape = [2, 2]>(r) y = Flatten(p) }}"
)


def pooled(ends: str = "float[N,M] y"):
    """A network whose first channel reads a constant, which a border makes another from place to place."""
    random = np.random.default_rng(0)
    u, k = (random.normal(0, 0.4, s).astype(np.float32) for s in ((3, 2, 1, 1), (3, 3, 3, 3)))
    u[0], k[0, 1:] = 0, 0
    data = {"x": random.normal(size=(80, 2, 4, 4)).astype(np.float32)}
    weights = {"u": u, "k": k, "c": np.float32([0.4, 0.3, 0.1])}
    return pipelines.imported(pipelines.text(POOLED.format(ends=ends), **weights)), data


def test_the_client_adds_what_steps_took():
    network, data = pooled()
    integer = pipelines.apply(network, f"normalize,quantize{{weights=4 activations=4}},{TABLES}", data)
    before, wanted = pipelines.outputs(integer, data), pipelines.outputs(network, data)
    (note,) = settle_constants(integer, network, data)
    assert "9 elements of output 'y' never vary" in note
    after = pipelines.outputs(integer, data)
    np.testing.assert_allclose(after[:, :9], wanted[:, :9], rtol=1e-6)
    assert np.abs(before[:, :9] - wanted[:, :9]).max() > 1e-4
    np.testing.assert_array_equal(after[:, 9:], before[:, 9:])
    assert integer.graph.outputs[0].name == "y"
    # There is nothing left to settle.
    assert settle_constants(integer, network, data) == []


@pytest.mark.parametrize("samples", [1, 8])
def test_few_samples_tell_of_no_constants(samples):
    network, data = pooled()
    integer = pipelines.apply(network, f"normalize,quantize{{weights=4 activations=4}},{TABLES}", data)
    assert settle_constants(integer, network, {"x": data["x"][:samples]}) == []


def test_an_output_that_another_reads_is_settled_by_itself():
    network, data = pooled("float[N,3,3,3] p, float[N,M] y")
    integer = pipelines.apply(network, f"normalize,quantize{{weights=4 activations=4}},{TABLES}", data)
    assert len(settle_constants(integer, network, data)) == 2
    wanted, found = Session(network).run_batched(data), Session(integer).run_batched(data)
    assert list(found) == list(wanted)
    np.testing.assert_allclose(found["p"][:, 0], wanted["p"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(found["y"][:, :9], wanted["y"][:, :9], rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("preset", ["balanced", "accurate"])
def test_a_blank_input_has_its_outputs(preset):
    """Scales are as small as can be, and tables straight lines: layers that meet then would be too large."""
    random = np.random.default_rng(38)
    arrays = {
        "k": random.normal(0, 0.7, (5, 2)),
        "c": random.normal(0, 0.3, 5),
        "w": random.normal(0, 0.4, (3, 5)),
        "b": random.normal(0, 5, 3),
    }
    text = (
        "(float[N,2] x) => (float[N,3] y) { h = Gemm<transB = 1>(x, k, c) a = Relu(h)"
        " z = Gemm<transB = 1>(a, w, b) y = Abs(z) }"
    )
    network = pipelines.text(text, **{n: np.float32(a) for n, a in arrays.items()})
    assert_constants(network, np.zeros((140, 2), np.float32), preset)
