"""distill starts where encryption starts: what the client computes before is run, not trained."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_fhe.ir import runtime
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.ir.load import load
from onnx_fhe.passes import Context
from onnx_fhe.passes.framework.manager import PassManager

torch = pytest.importorskip("torch")


def network(tmp_path) -> ir.Model:
    """Codes through an embedding, Erf of numbers; both into a small dense network."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(7, 3)),
        "w1": random.normal(size=(8, 10)) * 0.5,
        "b1": random.normal(size=8) * 0.2,
        "w2": random.normal(size=(3, 8)),
        "b2": random.normal(size=3) * 0.2,
    }
    nodes = [
        helper.make_node("Gather", ["table", "codes"], ["e"], "embed"),
        helper.make_node("Flatten", ["e"], ["f"], "flat"),
        helper.make_node("Erf", ["x"], ["g"], "erf"),
        helper.make_node("Concat", ["f", "g"], ["c"], "join", axis=1),
        helper.make_node("Gemm", ["c", "w1", "b1"], ["h"], "fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("codes", 7, ["N", 2]),
            helper.make_tensor_value_info("x", 1, ["N", 4]),
        ],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


def inputs(count: int = 200) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "codes": random.integers(0, 7, (count, 2)),
        "x": random.normal(size=(count, 4)).astype(np.float32),
    }


def test_the_student_starts_behind_the_client(tmp_path):
    from onnx_fhe.passes.distill.training.entry import entering, entries
    from onnx_fhe.passes.distill.training.student import Student

    text = "normalize,quantize{weights=6 activations=8}"
    model = PassManager.parse(text).run(network(tmp_path), Context(calibration=inputs())).model
    assert [str(v.name) for v in entries(model)] == ["c"]
    given = entering(model, inputs(50))
    student = Student(model, lambda _: 0, 0.1, [])
    with torch.no_grad():
        found = student([torch.from_numpy(a) for a in given])[0].numpy()
    wanted = next(iter(runtime.run(model, inputs(50)).values()))
    assert np.isclose(found, wanted, atol=1e-4).mean() > 0.97  # ties may be rounded the other way


def test_it_trains_and_leaves_the_client_alone(tmp_path):
    text = "normalize,quantize{weights=3 activations=4},distill{rounding=3 steps=20 augment=2}"
    result = PassManager.parse(text).run(network(tmp_path), Context(calibration=inputs()))
    assert any("distill: trained" in n for n in result.context.notes)
    gather = next(n for n in result.model.graph if n.op_type == "Gather")
    before = next(n for n in network(tmp_path).graph if n.op_type == "Gather")
    assert np.array_equal(constant_of(gather.inputs[0]), constant_of(before.inputs[0]))


def test_made_codes_are_codes_that_the_column_had():
    from onnx_fhe.analysis.augmentation.pool import pool

    random = np.random.default_rng(0)
    codes = np.stack([random.choice([1, 5], 40), random.choice([2, 9], 40)], axis=1)
    pixels = random.integers(0, 200, (40, 3, 3)).astype(np.uint8)
    made = pool({"codes": codes, "pixels": pixels}, 5, random, {}, 1.0)[0]
    assert len(made["codes"]) == 240
    assert set(made["codes"][:, 0]) == {1, 5}
    assert set(made["codes"][:, 1]) == {2, 9}
    assert made["pixels"].dtype == np.uint8
    assert made["pixels"].max() < 200
