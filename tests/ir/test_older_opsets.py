"""Opsets 7 to 12: the operators that networks are made of keep their outputs on the way to the newest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.runtime import run

Weights = dict[str, Any]
node = helper.make_node


def normal(*size: int) -> np.ndarray:
    return np.random.default_rng(len(size)).normal(size=size).astype(np.float32)


IMAGE = (2, 4, 6, 6)
NORMS = {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4))}
ELEMENTS = {k: np.abs(normal(4, 6, 6)) for k in ("s", "b", "m", "v")}
TWICE = {"s": np.float32([1, 1, 2, 2])}


def one(op: str, *inputs: str, **attributes: Any) -> list[NodeProto]:
    return [node(op, ["x", *inputs], ["y"], **attributes)]


def case(
    first: int,
    last: int,
    nodes: list[NodeProto],
    weights: Weights | None = None,
    shape: tuple[int, ...] = IMAGE,
) -> tuple[int, int, list[NodeProto], Weights, tuple[int, ...]]:
    return first, last, nodes, weights or {}, shape


CASES = {
    "elu": case(7, 12, one("Elu", alpha=0.5)),
    "erf": case(9, 12, one("Erf")),
    "add": case(7, 12, one("Add", "c"), {"c": normal(4, 1, 1)}),
    "max": case(8, 12, one("Max", "c"), {"c": normal(4, 1, 1)}),
    "prelu": case(7, 12, one("PRelu", "c"), {"c": normal(4, 1, 1)}),
    "relu6": case(7, 10, one("Clip", min=0.0, max=6.0)),
    "clip-one-sided": case(7, 10, one("Clip", min=0.25)),
    "clip-inputs": case(11, 12, one("Clip", "l", "h"), {"l": np.float32(-0.5), "h": np.float32(0.5)}),
    **{f"softmax-{axis}": case(7, 12, one("Softmax", axis=axis)) for axis in (1, 2, 3)},
    "softmax-default": case(7, 12, one("Softmax"), shape=(2, 5)),
    "log-softmax": case(7, 12, one("LogSoftmax", axis=1)),
    "hardmax": case(7, 12, one("Hardmax", axis=1)),
    "unsqueeze": case(7, 12, one("Unsqueeze", axes=[0, 3])),
    "squeeze": case(7, 12, one("Squeeze", axes=[1]), shape=(2, 1, 6)),
    "squeeze-all": case(7, 12, one("Squeeze"), shape=(2, 1, 6)),
    "reduce-sum": case(7, 12, one("ReduceSum", axes=[2, 3], keepdims=0)),
    "reduce-mean": case(7, 12, one("ReduceMean", axes=[2, 3])),
    "reduce-l2": case(7, 12, one("ReduceL2", axes=[1])),
    "split": case(
        7,
        12,
        [node("Split", ["x"], ["a", "c"], axis=1, split=[1, 3]), node("ReduceSum", ["c"], ["y"], axes=[1])],
    ),
    "pad": case(7, 10, one("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 2], value=0.5)),
    "pad-reflect": case(11, 12, one("Pad", "p", mode="reflect"), {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 2])}),
    "slice": case(7, 9, one("Slice", axes=[1, 2], starts=[0, 1], ends=[2, -1])),
    "slice-inputs": case(
        10,
        12,
        one("Slice", "s", "e", "a"),
        {"s": np.int64([0, 1]), "e": np.int64([2, -1]), "a": np.int64([1, 2])},
    ),
    "dropout": case(7, 11, one("Dropout", ratio=0.3)),
    "upsample-7": case(7, 8, one("Upsample", scales=[1.0, 1.0, 2.0, 3.0])),
    "upsample-9": case(9, 9, one("Upsample", "s"), TWICE),
    "upsample-linear-7": case(7, 8, one("Upsample", scales=[1.0, 1.0, 2.0, 2.0], mode="linear")),
    "upsample-linear-9": case(9, 9, one("Upsample", "s", mode="linear"), TWICE),
    "resize-10": case(10, 10, one("Resize", "s"), TWICE),
    "resize-linear-10": case(10, 10, one("Resize", "s", mode="linear"), TWICE),
    "resize-smaller-10": case(10, 10, one("Resize", "s"), {"s": np.float32([1, 1, 0.5, 0.5])}),
    "batch-norm": case(7, 12, one("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3), NORMS),
    "batch-norm-spatial": case(7, 8, one("BatchNormalization", "s", "b", "m", "v", spatial=1), NORMS),
    "batch-norm-elements": case(7, 8, one("BatchNormalization", "s", "b", "m", "v", spatial=0), ELEMENTS),
    "instance-norm": case(7, 12, one("InstanceNormalization", "s", "b"), NORMS),
    "gemm": case(
        7, 12, one("Gemm", "w", "b", transB=1, alpha=0.5), {"w": normal(3, 4), "b": normal(1, 3)}, (2, 4)
    ),
    "conv": case(7, 12, one("Conv", "w", pads=[1, 1, 1, 1]), {"w": normal(3, 4, 3, 3)}),
    "conv-transpose": case(7, 12, one("ConvTranspose", "w", strides=[2, 2]), {"w": normal(4, 3, 3, 3)}),
    "max-pool": case(7, 12, one("MaxPool", kernel_shape=[2, 2], strides=[2, 2])),
    "average-pool": case(
        7, 12, one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    ),
    "global-lp-pool": case(7, 12, one("GlobalLpPool")),
    "flatten": case(7, 12, one("Flatten")),
    "depth-to-space": case(7, 12, one("DepthToSpace", blocksize=2)),
    "tile": case(7, 12, one("Tile", "t"), {"t": np.int64([1, 2, 1, 1])}),
    "argmax": case(7, 12, [node("ArgMax", ["x"], ["a"], axis=1), node("Cast", ["a"], ["y"], to=1)]),
    "top-k": case(7, 9, [node("TopK", ["x"], ["y", "i"], k=2, axis=1)]),
    "equal": case(
        7,
        10,
        [
            node("Cast", ["x"], ["i"], to=6),
            node("Equal", ["i", "z"], ["e"]),
            node("Cast", ["e"], ["y"], to=1),
        ],
        {"z": np.int32([0])},
    ),
    "shape-preamble": case(
        7,
        12,
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "i"], ["d"], axis=0),
            node("Unsqueeze", ["d"], ["u"], axes=[0]),
            node("Concat", ["u", "m"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"i": np.int64(0), "m": np.int64([-1])},
    ),
    "quantized": case(
        10,
        12,
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        {"s": np.float32(0.1), "z": np.uint8(3)},
    ),
    "lstm": case(
        7, 12, one("LSTM", "w", "r", hidden_size=3), {"w": normal(1, 12, 4), "r": normal(1, 12, 3)}, (5, 2, 4)
    ),
}


def model_of(name: str, opset: int, weights_as: str) -> onnx.ModelProto:
    """The case as a model with its weights as initializers, as inputs too (IR 3), or as Constant nodes."""
    _, _, nodes, weights, shape = CASES[name]
    tensors = [numpy_helper.from_array(np.asarray(a), k) for k, a in weights.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [] if weights_as == "nodes" else tensors,
    )
    if weights_as == "nodes":
        for tensor in reversed(tensors):
            graph.node.insert(0, node("Constant", [], [tensor.name], value=tensor))
    if weights_as == "inputs":
        for t in tensors:
            graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    ir_version = 3 if weights_as == "inputs" else 4
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    graph = onnx.shape_inference.infer_shapes(proto).graph
    proto.graph.output[0].CopyFrom(graph.output[0])
    if not proto.graph.output[0].type.tensor_type.HasField("shape"):
        proto.graph.output[0].type.tensor_type.shape.dim.add()
    return proto


@pytest.mark.parametrize("name", CASES)
def test_operators_of_old_opsets(name, tmp_path):
    first, last, _, weights, shape = CASES[name]
    data = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    for opset in range(first, last + 1):
        kinds = (
            ["initializers"]
            if opset not in (first, 9) or not weights
            else ["initializers", "inputs", "nodes"]
        )
        for kind in kinds:
            proto = model_of(name, opset, kind)
            path = tmp_path / f"{opset}_{kind}.onnx"
            path.write_bytes(proto.SerializeToString())
            model = load(path)
            assert model.opset_imports[""] == target_opset()
            assert [i.name for i in model.graph.inputs] == ["x"]
            if kind != "inputs":  # onnxruntime warns of these, and takes them
                np.testing.assert_allclose(
                    run(model, data)["y"], _original(proto, data), rtol=1e-5, atol=1e-6
                )


def _original(proto: onnx.ModelProto, data: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(["y"], data)[0]
