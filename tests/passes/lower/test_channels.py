"""Channels that do not vary, features of different scales, cells that lie apart: the same function stays."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from onnx_fhe.analysis.ranges import outliers
from onnx_fhe.clipping import ClipReport
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import Session
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.framework.base import Findings
from onnx_fhe.prologue import Prologue
from onnx_fhe.testing import pipelines

TO_TABLES = "lower-to-integer,fuse-tlu,insert-rounding{bits=5}"
DENSE = (
    "(float[N,{i}] x) => (float[N,{o}] y) {{ z = Gemm<transB = 1>(x, w0, b0) a = Relu(z)"
    " y = Gemm<transB = 1>(a, w1, b1) }}"
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def compiled(model, data, options="weights=6 activations=8", notes=None):
    context = Context(calibration=data, findings=Findings(notes=[] if notes is None else notes))
    return PassManager.parse(f"normalize,quantize{{{options}}},{TO_TABLES}").run(model, context).model


def fidelity(wanted: np.ndarray, found: np.ndarray) -> float:
    """The smallest R^2 of an output that varies."""
    error = ((wanted - found) ** 2).mean(axis=0)
    return float((1 - error / wanted.var(axis=0)).min())


def dense(seed: int = 0, inputs: int = 6, hidden: int = 12, outputs: int = 3, **given):
    weights = {
        "w0": normal(hidden, inputs, seed=seed),
        "b0": normal(hidden, seed=seed + 1),
        "w1": normal(outputs, hidden, seed=seed + 2),
        "b1": normal(outputs, seed=seed + 3),
    }
    return pipelines.model(DENSE.format(i=inputs, o=outputs), **{**weights, **given})


@pytest.mark.parametrize(
    "options",
    [
        "weights=6 activations=8 max-weight-norm=15",
        "weights=1",
        "weights=3 per-neuron=false",
        "weights=4 method=gptq",
        "weights=4 method=nearest refit=false adapt=0",
        "weights=4 accumulator-bits=10",
        "weights=4 scales=power-of-two",
    ],
)
def test_an_output_without_weights_is_its_bias(options):
    w1 = normal(4, 12, seed=2)
    w1[[0, 2]] = 0
    model = dense(outputs=4, w1=w1, b1=np.float32([-0.0256, 0.3, 7.5, 0]))
    data = {"x": normal(200, 6, seed=9)}
    found = Session(compiled(model, data, options)).run_batched({"x": normal(50, 6, seed=8)})["y"]
    np.testing.assert_array_equal(found[:, 0], np.float32(-0.0256))
    np.testing.assert_array_equal(found[:, 2], np.float32(7.5))


@pytest.mark.parametrize("share", [1e-4, 1e-2, 1.0])
def test_activations_that_stay_far_from_zero_are_followed(share):
    """Hidden activations are 3, give or take ``share``."""
    model = dense(w0=normal(12, 6) * np.float32(share / 3), b0=np.full(12, 3, np.float32))
    data = {"x": normal(300, 6, seed=5)}
    integer, test = compiled(model, data), {"x": normal(200, 6, seed=6)}
    assert fidelity(Session(model).run_batched(test)["y"], Session(integer).run_batched(test)["y"]) > 0.9


@pytest.mark.parametrize("refit", ["true", "false"])
@pytest.mark.parametrize("form", ["Gemm", "MatMul", "Conv", "Conv padded", "two readers"])
def test_features_of_different_scales_have_scales_of_their_own(form, refit):
    """Standardised features, and the inverse inside the first weights."""
    scale = np.float32([1e3, 1, 1e-2, 30, 0.5, 1e-3])
    mean = np.float32([2e3, 0.5, 1, -30, 0, 1]) if form != "Conv padded" else np.zeros(6, np.float32)
    w0 = normal(8, 6) / scale
    b0 = -(w0.astype(np.float64) @ mean).astype(np.float32)
    w1, b1 = normal(3, 8, seed=2), normal(3, seed=3)
    if form == "Gemm":
        model = dense(hidden=8, w0=w0, b0=b0, w1=w1, b1=b1)
        x, t = (normal(300, 6, seed=s) * scale + mean for s in (5, 6))
    elif form == "two readers":
        model = pipelines.model(
            "(float[N,6] x) => (float[N,3] y) { z = Gemm<transB = 1>(x, w0, b0) a = Relu(z)"
            " s = Gemm<transB = 1>(x, w0, b0) c = Concat<axis = 1>(a, s) y = Gemm<transB = 1>(c, w1, b1) }",
            w0=w0,
            b0=b0,
            w1=normal(3, 16, seed=2),
            b1=b1,
        )
        x, t = (normal(300, 6, seed=s) * scale + mean for s in (5, 6))
    elif form == "MatMul":
        model = pipelines.model(
            "(float[N,4,6] x) => (float[N,4,3] y) { z = MatMul(x, w0) s = Add(z, b0) a = Relu(s)"
            " y = MatMul(a, w1) }",
            w0=np.ascontiguousarray(w0.T),
            b0=b0,
            w1=np.ascontiguousarray(w1.T),
        )
        x, t = (normal(100, 4, 6, seed=s) * scale + mean for s in (5, 6))
    else:
        pads = "1, 1, 1, 1" if form == "Conv padded" else "0, 0, 0, 0"
        side = 2 if form == "Conv padded" else 0
        model = pipelines.model(
            f"(float[N,6,4,4] x) => (float[N,3,{2 + side},{2 + side}] y)"
            f" {{ z = Conv<pads = [{pads}]>(x, w0, b0) a = Relu(z) y = Conv(a, w1, b1) }}",
            w0=np.ascontiguousarray(np.broadcast_to((w0 / 9)[:, :, None, None], (8, 6, 3, 3))),
            b0=b0,
            w1=w1[:, :, None, None],
            b1=b1,
        )
        shape = (6, 1, 1)
        x, t = (normal(100, 6, 4, 4, seed=s) * scale.reshape(shape) + mean.reshape(shape) for s in (5, 6))
    adapt = "" if refit == "true" else " adapt=0"
    integer = compiled(model, {"x": x}, f"weights=6 activations=8 inputs=8 refit={refit}{adapt}")
    wanted, found = (Session(m).run_batched({"x": t})["y"].reshape(-1, 3) for m in (model, integer))
    assert fidelity(wanted, found) > 0.9


def test_features_that_must_have_one_scale_and_lose_by_it_are_named():
    model = pipelines.model(
        "(float[N,3] x) => (float[N,2] y) { z = Gemm<transB = 1>(x, w0, b0) s = Add(z, x) a = Relu(s)"
        " y = Gemm<transB = 1>(a, w1, b1) }",
        w0=normal(3, 3),
        b0=normal(3, seed=1),
        w1=normal(2, 3, seed=2),
        b1=normal(2, seed=3),
    )
    notes: list[str] = []
    compiled(model, {"x": normal(200, 3, seed=5) * np.float32([1, 1e-3, 100])}, notes=notes)
    assert [n for n in notes if "features 0, 1 of 'x' keep few of the" in n and "(Add)" in n]


def test_a_dead_feature_goes_into_the_bias():
    x, scale = normal(200, 6, seed=5), np.float32([1e3, 1, 1e-2, 30, 0.5, 1e-3])
    x = x * scale
    x[:, 4] = 0.7
    model, notes = dense(w0=normal(12, 6) / scale), []
    integer = compiled(model, {"x": x}, notes=notes)
    assert fidelity(*(Session(m).run_batched({"x": x})["y"] for m in (model, integer))) > 0.9
    assert [n for n in notes if "feature 4 of 'x' never varies" in n]


@pytest.mark.parametrize("cell", [-9999.0, 1e6, 1e30])
def test_one_cell_does_not_ruin_a_range(cell):
    model, x, test = dense(), normal(120, 6, seed=5), normal(300, 6, seed=6)
    x[17, 3] = cell
    notes: list[str] = []
    integer = compiled(model, {"x": x}, notes=notes)
    assert fidelity(*(Session(m).run_batched({"x": test})["y"] for m in (model, integer))) > 0.9
    assert [n for n in notes if f"sample 17, feature 3: {cell:g} lies far" in n]


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=1000),
        np.random.default_rng(0).lognormal(0, 1.5, 1000),
        np.random.default_rng(0).standard_t(3, 1000),
        (np.arange(1000) == 5).astype(float),
        np.where(np.arange(1000) == 5, 1e6, 0),
        np.random.default_rng(0).poisson(0.1, 1000),
    ],
    ids=["normal", "lognormal", "heavy tails", "rare flag", "one million among zeros", "counts"],
)
def test_what_is_rare_is_no_outlier(values):
    array = values.astype(np.float32)[:, None]
    assert not outliers.find(array, 1).cells


def test_a_pixel_that_is_dark_as_a_rule_is_no_outlier():
    images = np.random.default_rng(0).uniform(size=(200, 30)).astype(np.float32)
    images[:, 3] = 0.001 * images[:, 3]
    images[7, 3] = 0.9
    assert not outliers.find(images, 1).cells


def test_markers_are_taken_for_the_nearest_value():
    array = normal(500, 4)
    array[[3, 77, 200], 2] = -9999
    array[5, 1] = 1e6
    found = outliers.find(array, 1)
    assert [(c[0], c[1]) for c in found.cells] == [(3, (2,)), (5, (1,)), (77, (2,)), (200, (2,))]
    assert found.array[3, 2] == np.delete(array[:, 2], [3, 77, 200]).min()
    assert found.array[5, 1] == np.delete(array[:, 1], 5).max()
    assert not outliers.find(found.array, 1).cells


def test_what_the_client_clips_is_counted_on_the_inputs_as_given():
    model, scale = dense(), np.float32([1e3, 1, 1e-2, 30, 0.5, 1e-3])
    model.graph.initializers["w0"].const_value = onnx_ir.tensor(normal(12, 6) / scale, name="w0")
    x = normal(200, 6, seed=5) * scale
    prologue = Prologue(partition(compiled(model, {"x": x}, "weights=6 activations=8 calibration=min-max")))
    assert prologue.run({"x": x})[1] == ClipReport()
    x[3, 2] = 1.0
    assert prologue.run({"x": x})[1] == ClipReport(1, 1, {"x": 1})
