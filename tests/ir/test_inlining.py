"""Operators of the dialect compute in sessions what their bodies compute in any onnxruntime, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_fhe.ir import dialect, inlining
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import Session, to_proto
from onnx_fhe.testing.integers import IntegerBuilder


def model(nodes, constants, shape, outputs=("y",), known=True) -> onnx.ModelProto:
    """Nodes from ``x`` of that shape to the outputs; ``known`` says whether shapes in between are."""
    middle = [helper.make_tensor_value_info("m", TensorProto.FLOAT, shape)] if known else []
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
        value_info=middle,
    )  # fmt: skip
    imports = [helper.make_opsetid("", target_opset())]
    return dialect.attach(helper.make_model(graph, opset_imports=imports, ir_version=target_ir_version()))


def op(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], domain=dialect.DOMAIN, **attributes)


def by_bodies(proto: onnx.ModelProto, data) -> list[np.ndarray]:
    """What onnxruntime makes of the file as it is."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, data)


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    inlining.inline(copy)
    return copy


def same(proto: onnx.ModelProto, data) -> None:
    before = proto.SerializeToString(deterministic=True)
    found = Session(proto).run(data)
    assert proto.SerializeToString(deterministic=True) == before
    for array, wanted in zip(found.values(), by_bodies(proto, data), strict=True):
        assert array.shape == wanted.shape
        np.testing.assert_array_equal(array, wanted)


def x(*shape: int, reach: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(-reach, reach, shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("step", "low"), [(1, 0), (1, -5), (4, -32), (8, 0)])
@pytest.mark.parametrize("shape", [("N", 3), ("N", 3, 2, 2)])
def test_tables(channels, step, low, shape):
    """Inputs past either end are clamped."""
    random = np.random.default_rng(1)
    constants = {"t": random.integers(-9, 9, (channels, 7)), "f": low + step * np.arange(channels)}
    nodes = [op("RoundBits", "x", "m", lsbs_to_remove=step.bit_length() - 1),
             op("TableLookup", "m t f", "y", step=step, axis=1)]  # fmt: skip
    proto = model(nodes, constants, shape)
    same(proto, {"x": x(20, *shape[1:])})
    assert not inlined(proto).functions


@pytest.mark.parametrize("axis", [1, 2])
def test_the_axis_of_the_channels(axis):
    constants = {"t": np.random.default_rng(1).integers(-9, 9, (4, 16)), "f": [-8, -4, 0, 3]}
    nodes = [op("TableLookup", "x t f", "y", axis=axis)]
    same(model(nodes, constants, ("N", 4, 4)), {"x": x(9, 4, 4, reach=12)})


@pytest.mark.parametrize("bits", [0, 1, 5])
def test_rounding_and_edges(bits):
    nodes = [op("Encrypt", "x", "e", low=-60, high=60), op("RoundBits", "e", "m", lsbs_to_remove=bits),
             op("Decrypt", "m", "y", low=-64, high=64)]  # fmt: skip
    proto = model(nodes, {}, ("N", 50))
    same(proto, {"x": x(30, 50)})
    rounding = ["Div", "Add", "Floor", "Mul"]
    assert [n.op_type for n in inlined(proto).graph.node] == ["Identity", *rounding, "Identity"]


def test_a_table_that_others_read_too_keeps_its_shape():
    constants = {"t": np.arange(16).reshape(1, 16), "f": [0]}
    nodes = [op("TableLookup", "x t f", "m"), op("TableLookup", "m t f", "y"),
             helper.make_node("Identity", ["t"], ["same"])]  # fmt: skip
    same(model(nodes, constants, ("N", 5), ("y", "same")), {"x": x(9, 5, reach=15)})
    same(model(nodes[:2], constants, ("N", 5), ("y", "t")), {"x": x(9, 5, reach=15)})


def test_what_is_not_known_is_left_to_the_bodies():
    """Tables that come in, and channels of a tensor of unknown rank."""
    constants = {"t": np.arange(48).reshape(3, 16), "f": [0, 1, 2], "s": [-1.0]}
    nodes = [helper.make_node("Mul", ["x", "s"], ["m"]), op("TableLookup", "m t f", "y")]
    proto = model(nodes, constants, ("N", 3), known=False)
    assert [f.name for f in inlined(proto).functions] == ["TableLookup"]
    same(proto, {"x": x(9, 3)})
    proto = model(nodes, constants, ("N", 3))
    (table,) = [i for i in proto.graph.initializer if i.name == "t"]
    proto.graph.input.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [3, 16]))
    proto.graph.initializer.remove(table)
    assert [f.name for f in inlined(proto).functions] == ["TableLookup"]
    same(proto, {"x": x(9, 3), "t": numpy_helper.to_array(table)})


def test_a_server_part():
    b = IntegerBuilder(samples=12)
    h = b.activate(b.conv(b.encrypt("x", (2, 4, 4)), 3, (3, 3)), 3, "approximate")
    b.decrypt(b.dense(b.op("Flatten", b.activate(h, 2)), 3))
    server = partition(b.model()).server
    same(to_proto(server), {k: v.astype(np.float32) for k, v in b.samples.items()})
