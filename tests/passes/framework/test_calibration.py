"""Calibration data: arrays and labels of the same samples, which stay together."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from onnx_fhe.passes import Calibration, Context, PassManager
from onnx_fhe.passes.compress.shrink.folds import Fold

ARRAYS = {"x": np.arange(12, dtype=np.float32).reshape(6, 2), "z": np.arange(6)}
LABELS = np.arange(6) % 3


def test_it_is_a_mapping_of_its_arrays():
    data = Calibration(ARRAYS, LABELS)
    assert (list(data), len(data), data["z"] is ARRAYS["z"]) == (["x", "z"], 2, True)
    assert {**data} == {**Calibration(ARRAYS)} == ARRAYS


def test_labels_go_with_their_samples():
    data = Calibration(ARRAYS, LABELS)
    for chosen in (np.array([4, 1]), np.arange(6) % 2 == 1):
        taken = data.take(chosen)
        np.testing.assert_array_equal(taken["x"], ARRAYS["x"][chosen])
        np.testing.assert_array_equal(taken.labels, LABELS[chosen])
    assert Calibration(ARRAYS).take(np.array([0])).labels is None


def test_other_arrays_of_the_same_samples_have_the_same_labels():
    data = Calibration(ARRAYS, LABELS)
    assert Calibration.of(data).labels is LABELS
    assert Calibration.of({"x": -ARRAYS["x"]}, labels_of=data).labels is LABELS
    assert Calibration.of(ARRAYS).labels is None


def test_a_context_takes_labels_from_its_calibration_data_alone():
    assert Context(calibration=Calibration(ARRAYS, LABELS)).labels is LABELS
    assert Context(calibration=ARRAYS).labels is None
    assert Context().labels is None
    assert "labels" not in {f.name for f in dataclasses.fields(Context)}


def test_a_share_of_the_samples_is_fitted_to_with_its_own_labels():
    context = Context(calibration=Calibration(ARRAYS, LABELS))
    train = np.array([0, 3, 5])
    np.testing.assert_array_equal(Fold(context, train, np.array([1])).fitting.labels, LABELS[train])


def test_labels_outlive_the_clipping_of_outliers():
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> graph (float[N, 2] x) => (float[N, 2] y) { y = Relu (x) }'
    )
    array = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    array[7, 1] = 1e6
    given = Calibration({"x": array}, np.arange(200))
    result = PassManager.parse("normalize").run(ir.from_onnx_text(text), Context(calibration=given))
    assert result.context.calibration["x"].max() < 1e6
    assert result.context.labels is given.labels
