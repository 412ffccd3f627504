"""Numbers drawn from a seed: the same everywhere, normal, and with fewer rows the first of more."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_fhe.ir import seeded
from onnx_fhe.ir.runtime import Session


def drawn(seed: int, *shape: int) -> np.ndarray:
    """What onnxruntime makes of the operator."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 1]))
    attributes = seeded.attributes(seed, list(shape))
    noise = ir.Node(seeded.DOMAIN, seeded.OPERATOR, [], attributes, num_outputs=1, name="noise")
    added = ir.Node("", "Add", [x, noise.outputs[0]], num_outputs=1, name="added")
    for value, name in ((noise.outputs[0], "noise"), (added.outputs[0], "y")):
        value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 21, seeded.DOMAIN: 1}
    graph = ir.Graph([x], [added.outputs[0]], nodes=[noise, added], opset_imports=opsets, name="g")
    found = Session(ir.Model(graph, ir_version=10)).run({"x": np.zeros((1, 1), np.float32)})
    return np.asarray(found["y"])


def test_the_numbers_are_these():
    """Artifacts hold a seed instead of them: they must stay what they are."""
    known = [[0.39471757, -0.71592927], [1.24710524, -0.83913112]]
    np.testing.assert_allclose(drawn(1, 2, 2), known, atol=1e-5)


def test_they_are_normal_and_do_not_depend_on_each_other():
    first, second = drawn(3, 200, 300), drawn(4, 200, 300)
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 1) < 0.02
    assert abs((first**4).mean() - 3) < 0.15
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_fewer_rows_are_the_first_of_more():
    np.testing.assert_array_equal(drawn(7, 3, 5), drawn(7, 8, 5)[:3])
