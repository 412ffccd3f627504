"""Networks of values: layers go down while the worst value keeps its R^2, and up where it does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe.analysis.outputs.divergence import worst_error
from onnx_fhe.ir.runtime import Session
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.presets import PRESETS
from onnx_fhe.passes.round.insert_rounding.whole import TARGET_LOSS, network_outputs

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    """Twelve inputs, one hidden layer, three values of sums of neurons."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=s).astype(np.float32) / 3 for s in ((12, 24), (24,), (24, 3), (3,))]
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 12] x) => (float[N, 3] y) {
            [one] a = Gemm (x, w0, w1)
            [act] b = Relu (a)
            [two] y = Gemm (b, w2, w3)
        }
        """
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights))
    path = tmp_path_factory.mktemp("regressor") / "m.onnx"
    onnx.save(model, path)
    return onnx_fhe.load(path)


def test_the_worst_number_counts_and_small_ones_do_not():
    wanted = RNG.normal(size=(500, 3)) * [1.0, 10.0, 1e-3]
    found = wanted + RNG.normal(size=(500, 3)) * [0.1, 2.0, 1.0]
    assert worst_error([found], [wanted]) == pytest.approx(
        0.04, rel=0.3
    )  # the second: the others vary little
    assert worst_error([wanted], [wanted]) == 0
    assert worst_error([np.ones((5, 1))], [np.ones((5, 1))]) == 0


def test_outputs_of_another_network_are_not_taken(regressor):
    data = {"x": RNG.normal(size=(20, 12)).astype(np.float32)}
    context = Context(calibration=data, source=regressor)
    (found,) = network_outputs(context, data, [np.zeros((20, 3))])
    np.testing.assert_array_equal(found, Session(regressor).run(data)["y"])
    assert network_outputs(context, data, [np.zeros((20, 2))]) is None
    assert network_outputs(context, {"z": data["x"]}, [np.zeros((20, 3))]) is None
    assert network_outputs(Context(calibration=data), data, [np.zeros((20, 3))]) is None


def test_a_regressor_keeps_its_values_and_pays_for_no_more(regressor):
    rng = np.random.default_rng(0)
    data, new = ({"x": rng.normal(size=(n, 12)).astype(np.float32)} for n in (400, 600))
    made = onnx_fhe.compile(regressor, data, PRESETS["balanced"].text, backend="reference")  # no mends
    careful = "normalize,quantize{weights=6 activations=8 max-weight-norm=15},lower-to-integer,fuse-tlu"
    strict = onnx_fhe.compile(
        regressor, data, f"{careful},insert-rounding{{bits=auto tolerance=0.005}}", backend="reference"
    )
    wanted = Session(regressor).run(new)["y"]
    assert worst_error([made.simulate(new).outputs["y"]], [wanted]) < 1.25 * TARGET_LOSS
    assert max(s.table_bits for s in made.statistics.layers) < max(
        s.table_bits for s in strict.statistics.layers
    )
