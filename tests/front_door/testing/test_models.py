"""The networks that other tests stand on are what they are said to be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_fhe.ir.runtime import run


def test_small_networks_are_valid_and_their_outputs_vary(small):
    onnx.checker.check_model(small.proto, full_check=True)
    for name, values in run(small.proto, small.data).items():
        assert len(values) == 64, name
        assert np.isfinite(values).all()
        # Weights under which every sample gives the same answer would test nothing.
        assert len(np.unique(values, axis=0)) > 1


def test_small_networks_are_the_same_each_time(zoo):
    for make in zoo.NETWORKS.values():
        assert make().SerializeToString(deterministic=True) == make().SerializeToString(deterministic=True)


def test_the_zoo_has_old_and_new_opsets(zoo):
    assert {make().opset_import[0].version for make in zoo.NETWORKS.values()} >= {11, 13, 14, 15, 16, 17}


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn"])
def test_examples_are_as_accurate_as_trained(name, request):
    example = request.getfixturevalue(name)
    logits = run(onnx.load(example.model), example.test_data)["logits"]
    assert (logits.argmax(axis=1) == example.labels).mean() > 0.97
    assert set(example.calibration_data) == {"input"}
    assert len(example.calibration_data["input"]) == 500


def test_no_test_image_is_among_the_calibration_images(digits_mlp):
    seen = {image.tobytes() for image in digits_mlp.calibration_data["input"]}
    assert not any(image.tobytes() in seen for image in digits_mlp.test_data["input"])
