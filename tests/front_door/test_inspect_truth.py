"""``inspect`` says what ``compile`` does: exit status, bootstraps of maxima too, each node once."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import ModelError, UnsupportedError
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager

RANDOM = np.random.default_rng(0)
PLAIN = "quantize{weights=4 activations=4 inputs=4 method=nearest adapt=0},lower-to-integer,fuse-tlu"


def weight(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.5, shape).astype(np.float32)


def written(
    path: Path, nodes: list, y: tuple | None, weights: dict, x: tuple = ("N", 4), kind: int = 1
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", kind, y)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def dense(path: Path, y: tuple = ("N", 3), kind: int = TensorProto.FLOAT, x: tuple = ("N", 4)) -> Path:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "v"], ["y"], "second"),
    ]
    return written(path, nodes, y, {"w": weight(4, 5), "v": weight(5, 3)}, x, kind)


@pytest.mark.parametrize(
    ("x", "y"), [(("N", 4), ("N", 3)), (("N", 4), (1, 3)), (("N", 4), ("a", "b")), ((1, 4), (1, 3))]
)
def test_outputs_that_are_declared_as_they_are(x: tuple, y: tuple, tmp_path: Path) -> None:
    assert inspect_model(dense(tmp_path / "m.onnx", y, x=x)).programmable_bootstraps == 5


@pytest.mark.parametrize("y", [("N", 7), ("N",), (), ("N", 3, 1), ("N", 0)])
def test_outputs_declared_in_another_shape_are_refused(y: tuple, tmp_path: Path) -> None:
    path = dense(tmp_path / "m.onnx", y)
    for attempt in (inspect_model, onnx_fhe.load):
        with pytest.raises(ModelError, match="another shape than the file says") as caught:
            attempt(path)
        assert "'y'" in caught.value.found


@pytest.mark.parametrize("kind", ["INT64", "DOUBLE", "BOOL", "STRING", "FLOAT16"])
def test_outputs_declared_of_another_type_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another type than the file says"):
        inspect_model(dense(tmp_path / "m.onnx", kind=getattr(TensorProto, kind)))


@pytest.mark.parametrize("window", [(2, 2), (3, 1), (4, 4)])
def test_bootstraps_of_max_pooling_are_counted(window: tuple[int, int], tmp_path: Path) -> None:
    size, stride = window
    left = (6 - size) // stride + 1
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[size] * 2, strides=[stride] * 2),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w"], ["y"], "fc"),
    ]
    weights = {"k": weight(2, 1, 3, 3), "w": weight(2 * left * left, 3)}
    path = written(tmp_path / "m.onnx", nodes, ("N", 3), weights, ("N", 1, 8, 8))
    found = inspect_model(path)
    data = {"x": RANDOM.normal(0, 1, (32, 1, 8, 8)).astype(np.float32)}
    program = onnx_fhe.compile(path, data, pipeline=PLAIN, backend="reference", check_samples=4)
    assert found.programmable_bootstraps == program.statistics.programmable_bootstraps
    assert found.programmable_bootstraps > 2 * 36
    assert "pool" in [x.layer for x in found.lookups]


@pytest.mark.parametrize("operator", ["Mul", "Max", "Div"])
def test_bootstraps_of_functions_of_two_tensors_are_counted(operator: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["g"], "first"),
        helper.make_node("Gemm", ["x", "b"], ["h"], "second"),
        helper.make_node("Exp", ["h"], ["e"], "positive"),
        helper.make_node(operator, ["g", "e"], ["m"], "both"),
        helper.make_node("Gemm", ["m", "v"], ["y"], "last"),
    ]
    weights = {"a": weight(4, 5), "b": weight(4, 5), "v": weight(5, 3)}
    path = written(tmp_path / "m.onnx", nodes, ("N", 3), weights)
    found = inspect_model(path)
    data = {"x": RANDOM.normal(0, 1, (64, 4)).astype(np.float32)}
    program = onnx_fhe.compile(
        path, data, pipeline=PLAIN, backend="reference", check_samples=4, accept_loss=True
    )
    assert found.programmable_bootstraps == program.statistics.programmable_bootstraps
    assert found.programmable_bootstraps > 10


def recurrent(path: Path, front: int) -> Path:
    """Dense layers, and behind them an LSTM of which everything is read."""
    weights = {f"w{i}": weight(8, 8) for i in range(front)}
    weights |= {"W": weight(1, 20, 2), "R": weight(1, 20, 5), "v": weight(5, 3)}
    weights |= {"steps": np.array([0, 4, 2]), "axis": np.array([0])}
    nodes, last = [], "x"
    for i in range(front):
        nodes += [
            helper.make_node("Gemm", [last, f"w{i}"], [f"h{i}"], f"dense{i}"),
            helper.make_node("Relu", [f"h{i}"], [f"r{i}"], f"relu{i}"),
        ]
        last = f"r{i}"
    nodes += [
        helper.make_node("Reshape", [last, "steps"], ["s"], "steps"),
        helper.make_node("Transpose", ["s"], ["t"], "turn", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "W", "R"], ["all", "state", "cell"], "lstm", hidden_size=5),
        helper.make_node("Add", ["state", "cell"], ["sum"], "sum"),
        helper.make_node("Squeeze", ["sum", "axis"], ["q"], "squeeze"),
        helper.make_node("Gemm", ["q", "v"], ["y"], "last"),
    ]
    return written(path, nodes, ("N", 3), weights, ("N", 8))


def test_one_node_is_reported_once(tmp_path: Path) -> None:
    found = inspect_model(recurrent(tmp_path / "m.onnx", 1))
    assert [f.node for f in found.findings] == ["lstm"]
    assert not found.supported


def convolutions(path: Path, tail: list, weights: dict, batch: int | str = "N") -> Path:
    """Ten convolutions on 3x32x32, and ``tail`` behind their 32 channels (``flat``)."""
    weights = dict(weights)
    nodes, last, channels = [], "x", 3
    for i in range(10):
        weights[f"k{i}"] = weight(32, channels, 3, 3)
        nodes += [
            helper.make_node("Conv", [last, f"k{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"),
        ]
        last, channels = f"r{i}", 32
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["flat"], "flat"),
    ]
    return written(path, [*nodes, *tail], (None, None), weights, (batch, 3, 32, 32))


def branches() -> list:
    made = [
        helper.make_graph(
            [helper.make_node(op, ["g"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, (None, None))],
        )
        for op in ("Relu", "Neg")
    ]
    return [
        helper.make_node("Gemm", ["flat", "first"], ["g"], "first"),
        helper.make_node("ReduceSum", ["g"], ["s"], "sum", keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["more"], "more"),
        helper.make_node("If", ["more"], ["chosen"], "branch", then_branch=made[0], else_branch=made[1]),
        helper.make_node("Gemm", ["chosen", "second"], ["y"], "second"),
    ]


def largest() -> list:
    return [
        helper.make_node("Gemm", ["flat", "first"], ["g"], "first"),
        helper.make_node("TopK", ["g", "five"], ["t", "places"], "most"),
        helper.make_node("Gemm", ["t", "second"], ["y"], "second"),
    ]


TAILS = {"branch": branches, "most": largest}
TAIL_WEIGHTS = {
    "first": weight(32, 5),
    "second": weight(5, 3),
    "zero": np.float32(0),
    "five": np.array([5]),
}


@pytest.mark.parametrize("preset", ["balanced", "fast", "accurate"])
@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("node", TAILS)
def test_what_stands_at_the_end_is_refused_at_once(
    node: str, batch: int | str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convolutions(tmp_path / "m.onnx", TAILS[node](), TAIL_WEIGHTS, batch)
    data = {"x": RANDOM.normal(0, 1, (100, 3, 32, 32)).astype(np.float32)}
    # Importing concrete-python takes longer than all the rest.
    monkeypatch.setattr("onnx_fhe.compiling.find_backend", lambda name: pytest.fail(f"{name} was loaded"))
    began = time.process_time()
    with pytest.raises(UnsupportedError, match="cannot be computed on encrypted data") as caught:
        onnx_fhe.compile(path, data, pipeline=preset)
    assert caught.value.where.node == node
    assert time.process_time() - began < 5


@pytest.mark.parametrize("node", TAILS)
def test_what_stands_at_the_end_is_found_once(node: str, tmp_path: Path) -> None:
    found = inspect_model(convolutions(tmp_path / "m.onnx", TAILS[node](), TAIL_WEIGHTS))
    assert [f.node for f in found.findings] == [node]


@pytest.mark.parametrize("preset", ["balanced", "fast", "accurate"])
def test_refusals_come_before_the_passes_that_take_long(preset: str, tmp_path: Path) -> None:
    path = recurrent(tmp_path / "m.onnx", 12)
    data = {"x": RANDOM.normal(0, 1, (300, 8)).astype(np.float32)}
    began = time.process_time()
    with pytest.raises(UnsupportedError) as caught:
        onnx_fhe.compile(path, data, pipeline=preset, backend="reference")
    assert caught.value.where.node == "lstm"
    assert time.process_time() - began < 5


def test_operands_of_one_element_are_no_trouble_to_remove_neurons(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "first"),
        helper.make_node("LayerNormalization", ["h", "g"], ["n"], "norm", axis=1),
        helper.make_node("Gemm", ["n", "v"], ["y"], "second"),
    ]
    weights = {"w": weight(4, 5), "v": weight(5, 3), "g": np.ones(5, np.float32)}
    path = written(tmp_path / "m.onnx", nodes, ("N", 3), weights)
    data = {"x": RANDOM.normal(0, 1, (64, 4)).astype(np.float32)}
    for options in ("ratio=0.5", "ratio=0.5 tolerance=0.02"):
        text = f"normalize,remove-neurons{{{options}}}"
        result = PassManager.parse(text).run(onnx_fhe.load(path), Context(calibration=data))
        assert any("left alone" in n for n in result.context.notes) == ("tolerance" not in options)
