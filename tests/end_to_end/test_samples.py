"""Samples are told apart by what follows their number, never by a size that happens to match."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

import onnx_fhe
from onnx_fhe.analysis.environment import Environment
from onnx_fhe.ir import samples
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def proto(body: str, **weights: object) -> onnx.ModelProto:
    made = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 1]>\ng {body}')
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), k) for k, a in weights.items())
    return made


@pytest.mark.parametrize(
    ("total", "most"), [(1, 4), (4, 4), (5, 4), (8, 4), (512, 256), (2, 1), (5, 1), (6, 2)]
)
def test_parts_cover_all_samples_and_differ_in_size(total, most):
    parts = samples.parts(total, most)
    assert np.array_equal(np.concatenate([np.arange(total)[p] for p in parts]), np.arange(total))
    sizes = [p.stop - p.start for p in parts]
    assert max(sizes) <= most + 1
    assert len(parts) == 1 or len(set(sizes)) > 1


def test_the_axis_that_follows_the_number_is_the_samples():
    assert samples.following([(1, 256), (1, 142)], [256, 142]) == 1
    assert samples.following([(256, 256), (142, 256)], [256, 142]) == 0  # as many features as samples
    assert samples.following([(3, 2), (3, 2)], [256, 142]) is None
    assert samples.following([(512, 4), (284, 4)], [256, 142]) == 0  # two steps of each sample
    for shapes in ([(256, 256), (142, 142)], [(256,), (1, 142)], [(4, 512), (4, 284)], [(5,), (6,)]):
        with pytest.raises(UnsupportedError, match="told apart"):
            samples.following(shapes, [256, 142], "v")


@pytest.mark.parametrize("total", [200, 256, 398, 512, 768])
def test_a_run_in_parts_gives_what_a_single_run_gives(total):
    body = """(float[N,256] x) => (float[N,256] y, float[A,B] row, float[C] fixed)
    { y = Relu(x) m = ReduceMean<axes = [1]>(x) row = Transpose(m) fixed = Add(c, c) }"""
    model, x = proto(body, c=normal(3)), normal(total, 256)
    found = run(model, {"x": x})
    np.testing.assert_array_equal(found["y"], np.maximum(x, 0))
    np.testing.assert_allclose(found["row"], x.mean(axis=1)[None], rtol=1e-4, atol=1e-6)
    assert found["fixed"].shape == (3,)


def test_what_mixes_samples_is_refused_rather_than_put_together():
    with pytest.raises(UnsupportedError, match="depend on each other") as caught:
        run(
            proto("(float[N,3] x) => (float[B,3] y) { y = ReduceMean<axes = [0]>(x) }"), {"x": normal(300, 3)}
        )
    assert "'y'" in caught.value.found


def test_a_model_for_one_sample_may_return_results_without_an_axis_for_it():
    model = proto(
        "(float[1,3] x) => (float[3] y, float s) { y = Reshape(x, t) s = ReduceSum<keepdims = 0>(x) }",
        t=np.int64([3]),
    )
    x = normal(5, 3)
    found = run(model, {"x": x})
    np.testing.assert_array_equal(found["y"], x)
    np.testing.assert_allclose(found["s"], x.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("shapes", [True, False])
def test_a_walk_keeps_samples_where_they_are(shapes):
    """Values with samples on axis 1, and without any, in a walk that runs them in parts."""
    body = """(float[N,4] x) => (float[N,4] y)
    { m = ReduceMean<axes = [1]>(x) row = Transpose(m) twice = Add(row, row) k = Exp(c)
      back = Transpose(twice) z = Mul(back, k) y = Add(x, z) }"""
    model = ir.from_proto(proto(body, c=normal(1, 4)))
    if shapes:
        for value, dims in (("m", ["N", 1]), ("row", [1, "N"]), ("k", [1, 4])):
            node = next(n for n in model.graph if n.outputs[0].name == value)
            node.outputs[0].shape = ir.Shape(dims)
    for total in (2, 255, 300, 512):
        x = normal(total, 4)
        env = Environment(model, {"x": x}, keep=model.graph.outputs)
        for node in model.graph:
            env.step([node])
            env.done(node)
        np.testing.assert_allclose(env[model.graph.outputs[0]], run(model, {"x": x})["y"], rtol=1e-6)


CLASSIFIER = """(float[N,6] x) => (int64[N] label, float[N,2] probabilities) {
    h = MatMul(x, w) a = Relu(h) s = MatMul(a, v) p = Sigmoid(s) q = Sub(one, p)
    probabilities = Concat<axis = 1>(q, p) i = ArgMax<axis = 1>(probabilities)
    row = ai.onnx.ml.ArrayFeatureExtractor(classes, i) flat = Reshape(row, t) label = Cast<to = 7>(flat) }"""


@pytest.mark.parametrize("total", [250, 256, 257, 398, 512])
def test_a_classifier_with_its_classes_in_a_row_compiles_for_any_number_of_samples(tmp_path, total):
    weights = {"w": normal(6, 5), "v": normal(5, 1), "one": np.float32(1), "t": np.int64([-1])}
    onnx.save(proto(CLASSIFIER, classes=np.int32([0, 1]), **weights), tmp_path / "m.onnx")
    data = {"x": normal(total, 6, seed=1)}
    program = onnx_fhe.compile(
        tmp_path / "m.onnx",
        data,
        pipeline="normalize,quantize{weights=8 inputs=8},lower-to-integer,fuse-tlu",
        backend="reference",
    )
    found, wanted = program.run(data).outputs, run(load(tmp_path / "m.onnx"), data)
    assert found["label"].shape == wanted["label"].shape == (total,)
    assert (found["label"] == wanted["label"]).mean() > 0.9
