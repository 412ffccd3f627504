"""What max-pooling and maxima lose: quantizers in front of them are fitted to what survives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnx_fhe
from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.quantize.activations import fit_quantizer
from onnx_fhe.passes.quantize.survivors import survivors
from onnx_fhe.testing import pipelines

NEEDED = {"accurate": 0.95, "balanced": 0.9}
UNROUNDED = "normalize,quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"
"""What accurate does before rounding, which takes its time."""


def pooling(window: int, before: str = "", dead: bool = False) -> tuple[str, dict[str, Any]]:
    """A convolution, maxima of windows, a linear layer."""
    random, size = np.random.default_rng(window), 2 * window if window > 3 else 6
    left = size // window
    bias = random.normal(0, 0.1, 3).astype(np.float32)
    bias[1] -= 100 * dead
    text = (
        f"(float[N,2,{size + 2},{size + 2}] x) => (y) {{ a = Conv(x, k, c)"
        f" b = {before or 'Identity'}(a)"
        f" p = MaxPool<kernel_shape = [{window}, {window}], strides = [{window}, {window}]>(b)"
        " f = Flatten(p) y = Gemm<transB = 1>(f, w, d) }"
    )
    return text, {
        "k": random.normal(0, 0.3, (3, 2, 3, 3)).astype(np.float32),
        "c": bias,
        "w": random.normal(0, 0.3, (4, 3 * left * left)).astype(np.float32),
        "d": random.normal(0, 0.1, 4).astype(np.float32),
    }


def reduction(operator: str, before: str) -> tuple[str, dict[str, Any]]:
    """The largest of 36 values, three times."""
    random = np.random.default_rng(7)
    text = (
        f"(float[N,8] x) => (y) {{ a = Gemm<transB = 1>(x, k, c) b = {before}(a) r = Reshape(b, s)"
        f" m = {operator}<keepdims = 0>(r, i) y = Gemm<transB = 1>(m, w, d) }}"
    )
    return text, {
        "k": random.normal(0, 0.5, (108, 8)).astype(np.float32),
        "c": random.normal(0, 0.1, 108).astype(np.float32),
        "s": np.int64([0, 3, 36]),
        "i": np.int64([2]),
        "w": random.normal(0, 0.5, (4, 3)).astype(np.float32),
        "d": random.normal(0, 0.1, 4).astype(np.float32),
    }


def r_squared(network: tuple[str, dict[str, Any]], preset: str) -> np.ndarray:
    """Of each output, on samples that calibration did not see."""
    text, weights = network
    model = pipelines.model(text, **weights)
    shape = [int(d) for d in list(model.graph.inputs[0].shape)[1:]]
    random = np.random.default_rng(1)
    seen, new = (random.normal(size=(n, *shape)).astype(np.float32) for n in (150, 200))
    wanted = run(model, {"x": new})["y"]
    program = onnx_fhe.compile(model, {"x": seen}, pipeline=preset, backend="reference")
    found = program.run({"x": new}, mode="clear").outputs["y"]
    return np.asarray(
        1 - ((found - wanted) ** 2).sum(axis=0) / ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    )


@pytest.mark.parametrize("before", ["", "Relu"])
@pytest.mark.parametrize("window", [2, 3, 6])
def test_max_pooling_keeps_its_outputs(window: int, before: str) -> None:
    assert r_squared(pooling(window, before), "accurate").min() > NEEDED["accurate"]


@pytest.mark.parametrize("before", ["Relu", "Tanh", "Identity"])
@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
def test_the_largest_of_36_keeps_its_outputs(operator: str, before: str) -> None:
    if (operator, before) == ("ReduceMin", "Relu"):
        pytest.skip("the least of 36 is always 0")
    found = r_squared(reduction(operator, before), UNROUNDED)
    assert found.mean() > NEEDED["accurate"]
    assert found.min() > NEEDED["balanced"]


def test_the_default_loses_little_too() -> None:
    assert r_squared(pooling(3, "Relu"), "balanced").min() > NEEDED["balanced"]


def test_a_dead_channel_among_those_that_are_shifted() -> None:
    assert r_squared(pooling(6, "Relu", dead=True), "accurate").min() > NEEDED["accurate"]


def seen_of(body: str, by_channel: bool, **weights: Any) -> tuple[list[str], str]:
    model: ir.Model = pipelines.model(
        f"(float[N,4] x) => (y) {{ a = MatMul(x, k) b = Relu(a) {body} }}", **weights
    )
    regions = find_regions(model)
    (value,) = [v for v in regions.quantized if v in regions.operands]
    return [str(v.name) for v in survivors(value, regions, by_channel)], str(value.name)


def test_what_survives() -> None:
    wide, narrow, square = (np.ones(s, np.float32) for s in ((4, 12), (3, 2), (12, 2)))
    whole = {"k": wide, "s": np.int64([0, 3, 4]), "t": np.int64([0, 12]), "i": np.int64([2])}
    chosen = "r = Reshape(b, s) m = ReduceMax<keepdims = 0>(r, i)"
    body = f"{chosen} y = MatMul(m, w)"
    assert seen_of(body, False, **whole, w=narrow)[0] == ["m"]
    # Channels are gone behind a maximum over them: a scale for each is fitted to all of them.
    names, value = seen_of(body, True, **whole, w=narrow)
    assert names == [value]
    # A layer that reads the tensor itself needs all of it.
    names, value = seen_of(
        f"{chosen} p = MatMul(m, w) q = MatMul(b, u) y = Add(p, q)", False, **whole, w=narrow, u=square
    )
    assert names == [value]


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_start_where_the_values_do(sign: int) -> None:
    values = sign * np.random.default_rng(0).uniform(3, 5, (2000, 1))
    plain, shifted = (fit_quantizer(values, 4, "mse", 99.9, False, s) for s in (False, True))
    lost = [float(((q.apply(values) - values) ** 2).mean()) for q in (plain, shifted)]
    assert lost[1] < lost[0] / 4
    codes = np.rint(shifted.apply(values) / shifted.scale)
    assert np.ptp(codes) <= 15
