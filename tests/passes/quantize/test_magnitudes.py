"""Networks with weights near the ends of what float32 holds: right, or refused by name, never no number."""

# ruff: noqa: PT017 - most are computed
from __future__ import annotations

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.analysis.outputs.divergence import output_error
from onnx_fhe.ir.errors import UserError
from onnx_fhe.passes.quantize.magnitudes import Magnitudes
from onnx_fhe.testing import pipelines

PER_NEURON = "quantize{weights=6 activations=7},lower-to-integer,fuse-tlu"
PER_TENSOR = "quantize{weights=6 activations=7 per-neuron=false},lower-to-integer,fuse-tlu"
AS_ROUNDED = (
    "quantize{weights=6 activations=7 per-neuron=false refit=false adapt=0},lower-to-integer,fuse-tlu"
)
TEXT = (
    "(float[N,3] x) => (float[N,2] y) {{ h = Gemm<transB = 1>(x, k, c) a = {activation}(h)"
    " y = Gemm<transB = 1>(a, w, b) }}"
)


def network(first: float, second: float, activation: str, bias: float = 0.3):
    """Two layers; the weights of each are of that size."""
    random = np.random.default_rng(1)
    given = {
        "k": random.normal(0, 0.6, (5, 3)) * first,
        "c": random.normal(0, 0.3, 5) * first,
        "w": random.normal(0, 0.5, (2, 5)) * second,
        "b": random.normal(0, bias, 2) * first * second,
    }
    weights = {n: np.float32(a) for n, a in given.items()}
    return pipelines.imported(pipelines.text(TEXT.format(activation=activation), **weights))


def answers(model, pipeline: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    data, test = (random.normal(size=(n, 3)).astype(np.float32) for n in (150, 80))
    program = onnx_fhe.compile(model, {"x": data}, pipeline, backend="reference", self_test=0)
    wanted = pipelines.outputs(model, {"x": test}).astype(np.float64)
    return wanted, program.run({"x": test}).outputs["y"].astype(np.float64)


def r_squared(wanted: np.ndarray, found: np.ndarray) -> float:
    level = np.abs(wanted).max(axis=0)
    wanted, found = wanted / level, found / level
    return float((1 - ((wanted - found) ** 2).mean(axis=0) / wanted.var(axis=0)).min())


@pytest.mark.filterwarnings("ignore:.*:onnx_fhe.fidelity.figures.FidelityWarning")
@pytest.mark.parametrize("pipeline", [PER_NEURON, PER_TENSOR, AS_ROUNDED])
@pytest.mark.parametrize(
    ("first", "second"), [(1e30, 1), (1e30, 1e-30), (1e20, 1e10), (1e-30, 1), (1e-30, 1e30), (1, 1e-30)]
)
def test_layers_of_any_size(first, second, pipeline):
    wanted, found = answers(network(first, second, "Relu"), pipeline)
    assert r_squared(wanted, found) > 0.97


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
@pytest.mark.parametrize(("first", "second"), [(1e-42, 1), (1, 1e-42), (1e-42, 1e38), (1e-42, 1e30)])
@pytest.mark.parametrize("pipeline", [PER_NEURON, PER_TENSOR, "accurate"])
def test_subnormal_weights_are_right_or_refused(first, second, activation, pipeline):
    model = network(first, second, activation)
    try:
        wanted, found = answers(model, pipeline)
    except UserError as error:
        assert "not a number" not in str(error)
        return
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= 0.1 * np.abs(wanted).max() + 1e-36


def test_units_are_powers_of_two_where_sizes_are_unusual():
    ordinary = Magnitudes.of([np.ones((4, 2)), np.zeros((4, 2))], np.full((4, 3), 1e6))
    assert (ordinary.inputs, ordinary.outputs, ordinary.weights) == (1, 1, 1)
    sizes = Magnitudes.of([np.full((4, 2), 3e28, np.float32)], np.full((4, 3), 1e-20))
    assert np.log2(sizes.inputs) % 1 == np.log2(sizes.outputs) % 1 == 0
    rows, wanted = sizes.applied([np.full((4, 2), 3e28, np.float32)], np.full((4, 3), 1e-20))
    assert 1 <= rows[0].max() < 2
    assert 1 <= wanted.max() < 2
    assert sizes.back(np.float64([1e-50])).min() > 0


@pytest.mark.parametrize("size", [1e-30, 1, 1e30])
def test_an_error_has_no_size(size):
    random = np.random.default_rng(0)
    wanted = (random.normal(size=(50, 3)) * size).astype(np.float32)
    found = (wanted * np.float32(1.1)).astype(np.float32)
    assert output_error([found], [wanted]) == pytest.approx(0.01, rel=0.2)
