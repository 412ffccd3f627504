"""Integer weights limited to an accumulator width never overflow it, and lose as little as they can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.errors import LimitError
from onnx_fhe.passes.quantize import accumulator
from onnx_fhe.passes.quantize.weights import (
    QuantizedWeight,
    candidate_scales,
    fit_scales,
    moment,
    output_error,
    round_weights,
)


def layer(seed, out=6, inputs=24, bits=4, low=0, high=15):
    random = np.random.default_rng(seed)
    rows = random.integers(low, high + 1, (300, inputs)).astype(np.float64)
    rows[:, -1] = 0.7 * rows[:, 0] + 0.3 * rows[:, -1]
    matrix = random.normal(size=(out, inputs))
    moments = [moment(rows)]
    return matrix, moments, fit_scales(matrix, moments, candidate_scales(matrix, bits, "mse"), bits)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    bits=st.integers(5, 12),
    weight_bits=st.integers(1, 6),
    low=st.integers(-16, 0),
    high=st.integers(1, 15),
    inputs=st.integers(1, 40),
)
def test_no_input_overflows(seed, bits, weight_bits, low, high, inputs):
    matrix, moments, fit = layer(seed, 4, inputs, weight_bits, low, high)
    limited = accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, low, high, bits)
    integers = limited.astype(np.int64)
    assert np.array_equal(integers, limited)
    # The worst inputs there are: each at the end that its weight's sign asks for.
    largest = np.where(integers > 0, high, low)
    smallest = np.where(integers > 0, low, high)
    span = (integers * largest).sum(axis=1) - (integers * smallest).sum(axis=1)
    assert np.array_equal(span, accumulator.spans(integers, low, high))
    assert (span <= 2**bits - 1).all()
    random = np.random.default_rng(seed).integers(low, high + 1, (200, inputs))
    found = random @ integers.T
    offset = (integers * smallest).sum(axis=1)
    assert (found - offset >= 0).all()
    assert (found - offset <= 2**bits - 1).all()
    assert np.all(integers[fit.integers == 0] == 0)
    assert (np.abs(integers).max(axis=1) <= np.abs(fit.integers).max(axis=1)).all()


def test_a_layer_that_fits_is_left_alone():
    matrix, moments, fit = layer(1)
    assert np.array_equal(
        accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, 0, 15, 16), fit.integers
    )


def test_the_limit_is_used_up():
    matrix, moments, fit = layer(2, inputs=64)
    limited = accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, 0, 15, 10)
    # One more step of any weight would not fit.
    assert (accumulator.spans(limited, 0, 15) > 2**10 - 1 - 2 * 15).all()


def test_ranges_may_differ_between_inputs():
    low, high = np.zeros(24), np.arange(24)
    matrix, moments, fit = layer(3)
    limited = accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, low, high, 7)
    assert (np.abs(limited) @ high <= 127).all()


def test_steps_are_taken_where_the_output_misses_them_least():
    matrix, moments, fit = layer(4, out=32, inputs=48)
    limited = accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, 0, 15, 9)
    # Against scaling all weights down until they fit.
    share = np.minimum(1, 511 / accumulator.spans(fit.integers, 0, 15))[:, None]
    plain = np.trunc(fit.integers * share)
    assert (accumulator.spans(plain, 0, 15) <= 511).all()

    def error(q):
        return output_error(q * fit.scale[:, None] - matrix, moments).sum()

    assert error(limited) < 0.5 * error(plain)


def test_the_best_of_several_scales_is_at_least_as_good():
    matrix, moments, fit = layer(5, out=16, inputs=48)
    coarse = QuantizedWeight(round_weights(matrix, fit.scale * 3, 4), fit.scale * 3)
    best = accumulator.fit_within([fit, coarse], matrix, moments, 0, 15, 8)
    assert (accumulator.spans(best.integers, 0, 15) <= 255).all()
    alone = accumulator.fit_within([fit], matrix, moments, 0, 15, 8)

    def error(q):
        return output_error(q.integers * q.scale[:, None] - matrix, moments)

    assert (error(best) <= error(alone)).all()
    assert error(best).sum() < error(alone).sum()


def test_groups_use_their_own_moments():
    matrix, moments, fit = layer(6, out=4)
    other = moment(np.random.default_rng(0).integers(0, 16, (300, 24)).astype(float) * (np.arange(24) < 12))
    limited = accumulator.limit_accumulator(fit.integers, fit.scale, matrix, [*moments, other], 0, 15, 9)
    alone = accumulator.limit_accumulator(fit.integers[2:], fit.scale[2:], matrix[2:], [other], 0, 15, 9)
    assert np.array_equal(limited[2:], alone)


def test_inputs_too_wide_for_any_weight_are_refused():
    matrix, moments, fit = layer(7)
    with pytest.raises(LimitError, match="no weight fits an accumulator of 3 bits"):
        accumulator.limit_accumulator(fit.integers, fit.scale, matrix, moments, 0, 15, 3)
