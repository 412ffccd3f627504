"""GPTQ, coordinate descent and adapting: they must beat what they start from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fhe.passes.quantize import solvers
from onnx_fhe.passes.quantize import weights as quantization


def _layer(seed: int, rows: int = 200, inputs: int = 12, outputs: int = 5):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(inputs, inputs))
    data = random.normal(size=(rows, inputs)) @ mixing
    return random.normal(size=(outputs, inputs)), data


def _error(weights: np.ndarray, moment: np.ndarray, fit: quantization.QuantizedWeight) -> np.ndarray:
    return quantization.output_error(fit.integers * fit.scale[:, None] - weights, [moment])


@given(seed=st.integers(0, 10_000), bits=st.integers(1, 6))
def test_descent_never_raises_the_error(seed, bits):
    weights, data = _layer(seed)
    moment = quantization.damped(quantization.moment(data), solvers.DAMPING)
    start = quantization.fit_scales(
        weights, [moment], quantization.candidate_scales(weights, bits, "mse"), bits
    )
    fit = solvers.descend(weights, quantization.moment(data), start, bits)
    assert np.all(_error(weights, moment, fit) <= _error(weights, moment, start) * (1 + 1e-9) + 1e-12)
    assert np.abs(fit.integers).max() <= quantization.largest_code(bits)
    assert np.array_equal(fit.integers, np.rint(fit.integers))
    assert np.all(fit.scale > 0)


@pytest.mark.parametrize("method", ["gptq", "descent"])
def test_solvers_beat_nearest_rounding_on_correlated_inputs(method):
    ratios = []
    for seed in range(20):
        weights, data = _layer(seed)
        moment = quantization.moment(data)
        start = quantization.fit_scales(
            weights, [moment], quantization.candidate_scales(weights, 3, "mse"), 3
        )
        fit = solvers.solve(weights, [moment], start, 3, method)
        ratios.append(_error(weights, moment, fit).sum() / _error(weights, moment, start).sum())
    assert np.median(ratios) < 0.9


@pytest.mark.parametrize("method", ["gptq", "descent"])
def test_pruned_weights_stay_zero(method):
    weights, data = _layer(1)
    weights[:, ::3] = 0
    moment = quantization.moment(data)
    start = quantization.fit_scales(weights, [moment], quantization.candidate_scales(weights, 4, "mse"), 4)
    fit = solvers.solve(weights, [moment], start, 4, method)
    assert not fit.integers[:, ::3].any()
    adapted = solvers.adapt(weights, [data], data @ weights.T + 0.1 * data[:, :5], 0.01)
    assert not adapted[:, ::3].any()
    assert not np.allclose(adapted, weights)


def test_adapt_undoes_what_the_inputs_lost():
    weights, data = _layer(2, rows=2000)
    wanted = data @ weights.T
    lossy = data * 0.8 + 0.3
    adapted = solvers.adapt(weights, [lossy], wanted, 1e-6)
    left = wanted - lossy @ adapted.T
    assert left.std(axis=0).max() < 1e-3 * wanted.std()
    assert np.allclose(solvers.adapt(weights, [data], wanted, 0.1), weights)


def test_wide_layers_are_rounded_as_others_are_but_in_blocks(monkeypatch):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(12, 150))
    h = quantization.moment(random.normal(size=(400, 150)) @ random.normal(size=(150, 150)))
    candidates = quantization.candidate_scales(matrix, 4, "mse")
    start = quantization.fit_scales(matrix, [h], candidates, 4)
    whole = solvers.gptq(matrix, h, start.scale, 4)
    descended = solvers.descend(matrix, h, start, 4)
    monkeypatch.setattr(solvers, "MAX_WHOLE_INPUTS", 100)
    monkeypatch.setattr(solvers, "BLOCK_INPUTS", 32)
    monkeypatch.setattr(quantization, "WIDE_INPUTS", 100)
    np.testing.assert_array_equal(solvers.gptq(matrix, h, start.scale, 4), whole)

    def error(q):
        return quantization.output_error(q.integers * q.scale[:, None] - matrix, [h]).sum()

    assert error(solvers.descend(matrix, h, start, 4)) < 1.05 * error(descended)
    assert error(quantization.fit_scales(matrix, [h], candidates, 4)) < 1.05 * error(start)
