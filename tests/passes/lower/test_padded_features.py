"""Zeros that a Pad puts among features: weights that meet nothing else cost their layer nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.testing.agreement import r_squared
from onnx_fhe.testing.builder import Builder


@pytest.mark.parametrize("pads", [[0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 3], [0, 1, 0, 0, 0, 0]])
def test_weights_that_meet_padding_only_cost_nothing(pads):
    b = Builder(17, seed=3)
    x = b.node("Tanh", b.dense("input", 5, 6))
    x = b.node("Reshape", x, b.constant([0, 3, 2], np.int64))
    x = b.node("Pad", x, b.constant(pads, np.int64), b.constant(0.0))
    features = (3 + pads[1] + pads[4]) * (2 + pads[2] + pads[5])
    proto = b.model(b.dense(b.node("Flatten", x), features, 4), [5], [4])
    data = {"input": np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)}
    model = (
        PassManager.parse("normalize,quantize{weights=4 activations=8 inputs=8 adapt=0}")
        .run(ir.from_proto(proto), Context(calibration=data))
        .model
    )
    (wanted,), (found,) = run(proto, data).values(), run(model, data).values()
    assert min(r_squared(wanted[:, i], found[:, i]) for i in range(4)) > 0.96
