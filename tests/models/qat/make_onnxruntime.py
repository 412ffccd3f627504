"""Writes the onnxruntime models of this folder: static quantization of small networks, untrained.

Run by ``make models``, or ``PYTHONPATH=tests/models python make_onnxruntime.py [folder]``; the quantizer
comes with onnxruntime.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from signature import sign


def _constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array.astype(np.float32), name)


def _model(
    nodes: list[onnx.NodeProto], shape: list[int], outputs: int, **weights: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        [_constant(k, v) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp(random: np.random.Generator) -> onnx.ModelProto:
    """Dense layers as Gemm and as MatMul and Add, with weights that are not centred."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"], name="first", transB=1),
        helper.make_node("Relu", ["h1"], ["a1"], name="relu"),
        helper.make_node("MatMul", ["a1", "w2"], ["m2"], name="second"),
        helper.make_node("Add", ["m2", "b2"], ["h2"], name="second_bias"),
        helper.make_node("Sigmoid", ["h2"], ["a2"], name="sigmoid"),
        helper.make_node("Gemm", ["a2", "w3", "b3"], ["y"], name="last", transB=1),
    ]
    return _model(
        nodes,
        [10],
        4,
        w1=random.normal(0.1, 0.4, (12, 10)),
        b1=random.normal(0, 0.2, 12),
        w2=random.normal(0.1, 0.4, (12, 8)),
        b2=random.normal(0, 0.2, 8),
        w3=random.normal(0, 0.5, (4, 8)),
        b3=random.normal(0, 0.2, 4),
    )


def cnn(random: np.random.Generator) -> onnx.ModelProto:
    """Convolutions, a sum of two branches, an average pooling, and a dense layer behind a Reshape."""
    pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["x", "k1", "c1"], ["h1"], name="first", **pads),
        helper.make_node("Relu", ["h1"], ["a1"], name="relu1"),
        helper.make_node("Conv", ["a1", "k2", "c2"], ["h2"], name="second", **pads),
        helper.make_node("Add", ["h2", "a1"], ["s2"], name="residual"),
        helper.make_node("Relu", ["s2"], ["a2"], name="relu2"),
        helper.make_node("AveragePool", ["a2"], ["p2"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p2", "shape"], ["f2"], name="flat"),
        helper.make_node("Gemm", ["f2", "w3", "b3"], ["y"], name="last", transB=1),
    ]
    model = _model(
        nodes,
        [1, 6, 6],
        3,
        k1=random.normal(0, 0.4, (3, 1, 3, 3)) * np.array([0.3, 1, 2]).reshape(3, 1, 1, 1),
        c1=random.normal(0, 0.2, 3),
        k2=random.normal(0, 0.3, (3, 3, 3, 3)),
        c2=random.normal(0, 0.2, 3),
        w3=random.normal(0, 0.3, (3, 27)),
        b3=random.normal(0, 0.2, 3),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 27], np.int64), "shape"))
    return model


class Random(CalibrationDataReader):
    """A few random batches."""

    def __init__(self, shape: list[int]) -> None:
        random = np.random.default_rng(1)
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{"x": random.normal(0, 1, (16, *shape)).astype(np.float32)} for _ in range(4)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None for no more."""
        return next(self.batches, None)


def main(folder: Path) -> None:
    """Write every model."""
    logging.disable(logging.WARNING)
    random = np.random.default_rng(0)
    networks = {"mlp": (mlp(random), [10]), "cnn": (cnn(random), [1, 6, 6])}
    types = {"u": QuantType.QUInt8, "s": QuantType.QInt8}
    for name, form, activation, weight, scales in (
        ("mlp", "qdq", "u", "s", "channel"),
        ("mlp", "qdq", "u", "u", "tensor"),
        ("mlp", "qdq", "s", "s", "tensor"),
        ("mlp", "qoperator", "u", "s", "channel"),
        ("mlp", "qoperator", "u", "u", "tensor"),
        ("cnn", "qdq", "u", "s", "channel"),
        ("cnn", "qoperator", "u", "s", "channel"),
        ("cnn", "qoperator", "s", "s", "tensor"),
    ):
        model, shape = networks[name]
        quantize_static(
            model,
            folder / f"onnxruntime_{name}_{form}_{activation}8{weight}8_{scales}.onnx",
            Random(shape),
            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
            per_channel=scales == "channel",
            activation_type=types[activation],
            weight_type=types[weight],
        )
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "mlp.onnx"
        onnx.save(networks["mlp"][0], given)
        quantize_dynamic(given, folder / "onnxruntime_mlp_dynamic.onnx")
    for path in sorted(folder.glob("onnxruntime_*.onnx")):
        path.write_bytes(sign(path.stem, onnx.load(path), "onnxruntime"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
