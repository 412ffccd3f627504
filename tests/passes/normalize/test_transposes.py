"""A Transpose moves behind what works element by element in any layout, and stops in front of all else."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.normalize.normalize import Normalize
from onnx_fhe.testing import pipelines

ALONG = {
    "sum": "s = ReduceSum<keepdims = 1>(t, axis)",
    "mean": "s = ReduceMean<keepdims = 1>(t, axis)",
    "largest": "s = ReduceMax<keepdims = 1>(t, axis)",
    "running sum": "s = CumSum(t, last)",
    "softmax of the last axis": "s = Softmax(t)",
    "norm of the last axis": "s = LpNormalization(t)",
}
"""Operators along the last axis, which has one element here: on that they work element by element."""


@pytest.mark.parametrize("name", ALONG)
def test_an_operator_along_an_axis_of_one_element_keeps_its_axis(name):
    random = np.random.default_rng(0)
    model = pipelines.model(
        "(float[N,1,3,2] x) => (float[N,4] y) { r = Relu(x) t = Transpose<perm = [0, 2, 3, 1]>(r)"
        f" {ALONG[name]}"
        " f = Flatten(s) y = Gemm(f, w) }",
        w=random.normal(size=(6, 4)).astype(np.float32),
        axis=np.array([3]),
        last=np.array(3),
    )
    data = {"x": random.normal(size=(20, 1, 3, 2)).astype(np.float32)}
    after = Normalize()(model.clone()).model
    np.testing.assert_allclose(run(after, data)["y"], run(model, data)["y"], rtol=1e-5, atol=1e-5)


BY_CHANNEL = {
    "a convolution of single points, each channel by itself": "s = Conv<group = 2>(t, w4, c)",
    "the same, transposed": "s = ConvTranspose<group = 2>(t, w4, c)",
    "batch normalization": "s = BatchNormalization(t, c, c, c, squares)",
}
"""Operators that work element by element, but with a constant for each entry of axis 1."""


@pytest.mark.parametrize("name", BY_CHANNEL)
def test_constants_of_channels_stay_with_their_channels(name):
    random = np.random.default_rng(0)
    channels = random.normal(size=2).astype(np.float32)
    model = pipelines.model(
        "(float[N,3,4,2] x) => (float[N,5] y) { r = Relu(x) t = Transpose<perm = [0, 3, 1, 2]>(r)"
        f" {BY_CHANNEL[name]} f = Flatten(s) y = Gemm(f, w) }}",
        w=random.normal(size=(24, 5)).astype(np.float32),
        w4=random.normal(size=(2, 1, 1, 1)).astype(np.float32),
        c=channels,
        squares=channels**2,
    )
    data = {"x": random.normal(size=(20, 3, 4, 2)).astype(np.float32)}
    after = Normalize()(model.clone()).model
    np.testing.assert_allclose(run(after, data)["y"], run(model, data)["y"], rtol=1e-4, atol=1e-4)


def test_it_still_moves_behind_a_function_of_each_element():
    model = pipelines.model(
        "(float[N,1,3,2] x) => (float[N,3,2,1] y) { r = Relu(x) t = Transpose<perm = [0, 2, 3, 1]>(r)"
        " s = Tanh(t) u = Transpose<perm = [0, 3, 1, 2]>(s) v = Relu(u)"
        " y = Transpose<perm = [0, 2, 3, 1]>(v) }"
    )
    after = Normalize()(model.clone()).model
    assert [n.op_type for n in after.graph].count("Transpose") == 1
