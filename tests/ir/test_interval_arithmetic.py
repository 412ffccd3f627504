"""Interval arithmetic: no result is outside, the ends are reached, and numbers and arrays agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fhe.ir.interval_arithmetic import added, multiplied, negated, subtracted, weighted

BOUNDS = st.tuples(st.integers(-50, 50), st.integers(0, 30)).map(lambda p: (float(p[0]), float(p[0] + p[1])))
RULES = {"add": (added, np.add), "subtract": (subtracted, np.subtract), "multiply": (multiplied, np.multiply)}


def inside(bounds: tuple[float, float]) -> np.ndarray:
    return np.arange(bounds[0], bounds[1] + 1)


@pytest.mark.parametrize("name", RULES)
@given(x=BOUNDS, y=BOUNDS)
def test_the_bounds_are_those_of_all_results(name, x, y):
    rule, operation = RULES[name]
    results = operation.outer(inside(x), inside(y))
    assert rule(x, y) == (results.min(), results.max())


@given(x=BOUNDS)
def test_what_is_negated(x):
    assert negated(x) == (-inside(x).max(), -inside(x).min())


@pytest.mark.parametrize("name", RULES)
@given(pairs=st.lists(st.tuples(BOUNDS, BOUNDS), min_size=1, max_size=4))
def test_elements_have_the_bounds_that_each_has_alone(name, pairs):
    rule, _ = RULES[name]
    x, y = (tuple(np.array([p[i][end] for p in pairs]) for end in (0, 1)) for i in (0, 1))
    low, high = rule(x, y)
    assert list(zip(low, high, strict=True)) == [rule(*p) for p in pairs]


@given(
    x=st.lists(BOUNDS, min_size=3, max_size=3), weights=st.lists(st.integers(-4, 4), min_size=3, max_size=3)
)
def test_a_linear_map_reaches_both_ends(x, weights):
    w = np.array(weights)
    low, high = (np.array([b[end] for b in x]) for end in (0, 1))
    found = weighted((low, high), lambda v: np.maximum(w, 0) @ v, lambda v: np.minimum(w, 0) @ v)
    at_ends = [[w[i] * e for e in x[i]] for i in range(3)]
    assert found == (sum(min(e) for e in at_ends), sum(max(e) for e in at_ends))
