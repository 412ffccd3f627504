"""QONNX: parameters may be numbers of any type; the network is the one with floats for them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_fhe.ir.load import load
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager

FLOATS = [np.float16, np.float32, np.float64]
INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.int64]
QUANT = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
RANDOM = np.random.default_rng(7)
DATA = {"x": RANDOM.normal(0, 1, (32, 6)).astype(np.float32)}
WEIGHTS = [RANDOM.normal(0, 1, shape).astype(np.float32) for shape in ((6, 4), (4, 3))]


def network(
    path: Path, kinds: tuple[type, type, type], rank: int = 0, where: str = "initializer", opset: int = 9
) -> Path:
    """Two dense layers with quantizers; scale, zero point and width of these types.

    Args:
        path: Of the file.
        kinds: Types of scale, zero point and width.
        rank: 0 for scalars, 1 for one number in an axis of its own, 2 for a scale and zero point per channel.
        where: ``initializer``, ``constant`` (a node) or ``computed`` (by another node).
        opset: Of ONNX itself.
    """
    nodes: list[onnx.NodeProto] = []
    stored: dict[str, np.ndarray] = {"w1": WEIGHTS[0], "w2": WEIGHTS[1]}

    def parameter(name: str, value: float, kind: type, channels: int) -> str:
        number = np.asarray(value, kind) if not rank else np.full(channels if rank == 2 else 1, value, kind)
        if where == "initializer":
            stored[name] = number
        elif where == "constant":
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(number)))
        else:
            stored[f"{name}_given"] = number
            nodes.append(helper.make_node("Identity", [f"{name}_given"], [name]))
        return name

    def quant(x: str, scale: float, zero: int, bits: int, channels: int, **changes: int) -> str:
        given = [
            parameter(f"{x}_scale", scale, kinds[0], channels),
            parameter(f"{x}_zero", zero, kinds[1], channels),
            parameter(f"{x}_bits", bits, kinds[2], 1),
        ]
        nodes.append(
            helper.make_node(
                "Quant",
                [x, *given],
                [f"{x}_q"],
                f"quant_{x}",
                domain="finn.custom_op.general",
                **(QUANT | changes),
            )
        )
        return f"{x}_q"

    first = [quant("x", 0.125, 0, 6, 1), quant("w1", 0.0625, 0, 6, 4)]
    nodes.append(helper.make_node("MatMul", first, ["m"], "first"))
    nodes.append(helper.make_node("Relu", ["m"], ["r"], "relu"))
    second = [quant("r", 0.125, 2, 6, 4, signed=0), quant("w2", 0.0625, 0, 6, 3)]
    nodes.append(helper.make_node("MatMul", second, ["y"], "second"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("finn.custom_op.general", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def integers(path: Path) -> np.ndarray:
    """What the network computes on tables, after its outputs were seen to be those of the file."""
    model = load(path)
    text = "normalize,import-qat,quantize,lower-to-integer,fuse-tlu"
    result = PassManager.parse(text).run(model, Context(calibration=DATA, ranges=RangeOptions(margin=1.0)))
    found = run(result.model, DATA)["y"]
    np.testing.assert_allclose(found, run(model, DATA)["y"], atol=1e-4)
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The network with float parameters."""
    found = integers(network(tmp_path_factory.mktemp("float") / "float.onnx", (np.float32,) * 3))
    assert found.std() > 0.1
    return found


@pytest.mark.parametrize(
    "kinds",
    [
        *((np.float32, kind, kind) for kind in INTEGERS),
        *((kind, np.int64, np.int64) for kind in FLOATS),
        *product((np.float16, np.float64), (np.float32, np.float64), (np.int8,)),
    ],
    ids=lambda kinds: "-".join(k.__name__ for k in kinds),
)
def test_parameters_of_any_numeric_type(kinds: tuple[type, type, type], tmp_path: Path, expected: np.ndarray):
    np.testing.assert_allclose(integers(network(tmp_path / "m.onnx", kinds)), expected, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("where", ["initializer", "constant", "computed"])
@pytest.mark.parametrize("opset", [9, 17])
def test_wherever_they_stand(rank: int, where: str, opset: int, tmp_path: Path, expected: np.ndarray) -> None:
    path = network(tmp_path / "m.onnx", (np.float32, np.int64, np.int64), rank, where, opset)
    np.testing.assert_allclose(integers(path), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("BipolarQuant", [np.int32(2)]),
        ("Trunc", [np.float64(0.5), np.int64(0), np.int8(4), np.uint8(3)]),
        ("IntQuant", [np.float16(0.5), np.int64(0), np.int64(4)]),
    ],
)
def test_other_operators(op: str, inputs: list[np.generic], tmp_path: Path) -> None:
    outputs = []
    for kind in (None, np.float32):
        stored = {f"p{i}": np.asarray(v, kind or v.dtype) for i, v in enumerate(inputs)}
        node = helper.make_node(op, ["x", *stored], ["y"], "q", domain="qonnx.custom_op.general")
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])],
            [numpy_helper.from_array(v, k) for k, v in stored.items()],
        )
        path = tmp_path / "m.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        outputs.append(run(load(path), DATA)["y"])
    assert np.unique(outputs[0]).size > 1
    np.testing.assert_array_equal(*outputs)


def test_an_integer_that_others_read_stays_one(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", (np.float32, np.int64, np.int64), 1)
    proto = onnx.load(path)
    # The width of the first quantizer is the size of an axis, too.
    proto.graph.node.append(helper.make_node("Reshape", ["x", "shape"], ["z"], "reshape"))
    proto.graph.node.append(helper.make_node("Concat", ["minus", "x_bits"], ["shape"], "shape", axis=0))
    proto.graph.node.insert(0, proto.graph.node.pop())
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "minus"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 6]))
    onnx.save(proto, path)
    np.testing.assert_array_equal(run(load(path), DATA)["z"], DATA["x"])
