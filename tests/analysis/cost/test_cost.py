"""The cost model against Concrete's own prediction, and what it must respect."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.analysis.cost import bootstrap, cost
from onnx_fhe.analysis.cost.timing import default_timings
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir import load
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.testing.integers import IntegerBuilder

TAIL = "lower-to-integer,fuse-tlu"


@pytest.mark.parametrize(
    "text",
    [
        f"normalize,quantize{{weights=3}},{TAIL},insert-rounding{{bits=4}}",
        f"normalize,quantize{{weights=4}},{TAIL},insert-rounding{{bits=3 range-fill=full}}",
        f"normalize,quantize{{weights=2 activations=2 inputs=1 calibration=min-max}},{TAIL}",
    ],
)
def test_estimate_is_near_concretes_prediction(digits_mlp, text):
    context = Context(calibration=digits_mlp.calibration_data)
    model = PassManager.parse(text).run(load.load(digits_mlp.model), context).model
    estimated = cost.estimate(model)
    real = get_backend("concrete").lower(model).statistics()
    assert estimated.bootstraps == real.programmable_bootstraps
    assert estimated.complexity == pytest.approx(real.complexity, rel=0.15)


def test_float_estimate_counts_every_activation(digits_mlp, digits_cnn):
    for example in (digits_mlp, digits_cnn):
        context = Context(calibration=example.calibration_data)
        normalized = PassManager.parse("normalize").run(load.load(example.model)).model
        text = f"normalize,quantize{{weights=3}},{TAIL},insert-rounding{{bits=4}}"
        integer = PassManager.parse(text).run(load.load(example.model), context).model
        assert cost.estimate_float(normalized).bootstraps == cost.estimate(integer).bootstraps


def chain(b, bits=3, factor=1):
    """A lookup on an encrypted input."""
    x = b.encrypt("x", (6,), 0, 2**bits - 1)
    return b.lookup(x, np.arange(2**bits)[None] * factor % 4, [0])


def scaled(factor, bits):
    """A lookup, a constant factor, a sum, and a lookup of ``bits`` bits: the factor is in the norm."""
    b = IntegerBuilder(1)
    y = b.op("Mul", chain(b), b.constant([float(factor)]))
    y = b.op("Gemm", y, b.constant(np.ones((6, 6))), transB=1)
    b.decrypt(b.activate(y, keep=bits, mode="approximate", high=1), low=0, high=1)
    return b.model()


def residual(factors, bits):
    """Two branches, scaled by constants and added."""
    b = IntegerBuilder(2)
    y = chain(b)
    left = b.activate(b.dense(y, 6, 2), keep=bits, mode="approximate", high=3)
    left, right = (b.op("Mul", v, b.constant([float(f)])) for v, f in zip((left, y), factors, strict=True))
    z = b.activate(b.op("Add", left, right), keep=bits, mode="approximate", high=1)
    b.decrypt(z, low=0, high=1)
    return b.model()


def raw(factor, bits):
    """A factor in front of an output of ``bits`` bits."""
    b = IntegerBuilder(3)
    y = b.op("Mul", b.dense(chain(b, 4), 4, 3), b.constant([float(factor)]))
    b.decrypt(y, low=-(2 ** (bits - 1)), high=2 ** (bits - 1) - 1)
    return b.model()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda m=make, a=args: m(*a), id=f"{make.__name__}{args}")
        for make, args in [
            (scaled, (1, 4)),
            (scaled, (16, 4)),
            (scaled, (300, 4)),
            (scaled, (40, 5)),
            (residual, ((1, 1), 4)),
            (residual, ((9, 5), 4)),
            (residual, ((2, 300), 3)),
            (raw, (1, 7)),
            (raw, (20, 12)),
        ]
    ],
)
def test_estimate_is_near_concretes_prediction_on_small_circuits(model):
    made = model()
    estimated, real = cost.estimate(made), get_backend("concrete").lower(made).statistics()
    assert estimated.bootstraps == real.programmable_bootstraps
    assert estimated.complexity == pytest.approx(real.complexity, rel=0.15)


def test_bits_and_precisions_never_make_a_bootstrap_cheaper():
    by_bits = [bootstrap.bootstrap_complexity(b) for b in range(1, 17)]
    assert by_bits == sorted(by_bits)
    for bits in range(1, 9):
        by_precision = [bootstrap.bootstrap_complexity(bits, d) for d in np.arange(-2, 30, 0.25)]
        assert by_precision == sorted(by_precision)
    timings = default_timings()
    times = [timings.of_complexity(c) for c in np.geomspace(2e7, 1e10, 40)]
    assert times == sorted(times)


def test_a_larger_error_never_makes_a_bootstrap_cost_more():
    for bits in range(1, 9):
        for precision in (0.0, 6.0, 15.0):
            costs = [
                bootstrap.bootstrap_complexity(bits, precision, p)
                for p in (1e-12, 1e-7, 1e-5, 1e-3, 1e-2, 0.1)
            ]
            assert costs == sorted(costs, reverse=True)
            assert costs[-1] < 0.9 * costs[0]


def test_pass_notes_the_estimate_and_changes_nothing(digits_mlp):
    model = load.load(digits_mlp.model)
    result = PassManager.parse("normalize,estimate-cost{bits=5}").run(model)
    assert any("64 bootstraps" in note for note in result.context.notes)
    again = PassManager.parse("estimate-cost").run(result.model)
    assert not again.modified
