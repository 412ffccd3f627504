"""The cost model against Concrete's own prediction, and what it must respect."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir import load
from onnx_fhe.passes.analysis import cost
from onnx_fhe.passes.base import Context
from onnx_fhe.passes.manager import PassManager

TAIL = "lower-to-integer,fuse-tlu"


@pytest.mark.parametrize(
    "text",
    [
        f"normalize,quantize{{weights=3}},{TAIL},insert-rounding{{bits=4}}",
        f"normalize,quantize{{weights=4}},{TAIL},insert-rounding{{bits=3 fill=full}}",
        f"normalize,quantize{{weights=2 activations=2 inputs=1 calibration=min-max}},{TAIL}",
    ],
)
def test_estimate_is_near_concretes_prediction(digits_mlp, text):
    context = Context(calibration=digits_mlp.calibration_data)
    model = PassManager.parse(text).run(load.load(digits_mlp.model), context).model
    estimated = cost.estimate(model)
    real = get_backend("concrete").lower(model).statistics()
    assert estimated.bootstraps == real.programmable_bootstraps
    assert estimated.complexity == pytest.approx(real.complexity, rel=0.35)


def test_float_estimate_counts_every_activation(digits_mlp, digits_cnn):
    for example in (digits_mlp, digits_cnn):
        context = Context(calibration=example.calibration_data)
        normalized = PassManager.parse("normalize").run(load.load(example.model)).model
        text = f"normalize,quantize{{weights=3}},{TAIL},insert-rounding{{bits=4}}"
        integer = PassManager.parse(text).run(load.load(example.model), context).model
        assert cost.estimate_float(normalized).bootstraps == cost.estimate(integer).bootstraps


def test_bits_and_levels_never_make_a_bootstrap_cheaper():
    by_bits = [cost.bootstrap_complexity(b) for b in range(1, 13)]
    assert by_bits == sorted(by_bits)
    for bits in range(1, 9):
        by_level = [cost.bootstrap_complexity(bits, level) for level in range(len(cost.LEVELS))]
        assert by_level == sorted(by_level)
    times = [cost.milliseconds(c) for c in np.geomspace(2e7, 1e10, 40)]
    assert times == sorted(times)


def test_pass_notes_the_estimate_and_changes_nothing(digits_mlp):
    model = load.load(digits_mlp.model)
    result = PassManager.parse("normalize,estimate-cost{bits=5}").run(model)
    assert any("64 bootstraps" in note for note in result.context.notes)
    again = PassManager.parse("estimate-cost").run(result.model)
    assert not again.modified
