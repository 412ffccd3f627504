"""Writing a small ONNX model node by node, as exporters do, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes and random weights; most methods return the name of the value that they made.

    Args:
        opset: ai.onnx opset of the model.
        seed: Seeds the weights.

    Attributes:
        random: Where weights come from.
        nodes, weights: What there is so far.
    """

    def __init__(self, opset: int, seed: int) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """An initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """An initializer of normally distributed numbers with that standard deviation."""
        return self.constant(self.random.normal(0, scale, shape))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.split(op, *inputs, outputs=1, **attributes)[0]

    def split(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        made = [f"v{len(self.nodes)}" if i == 0 else f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        # Named as exporters do, /OP_3; every fifth stays without a name, as in many files.
        name = "" if len(self.nodes) % 5 == 4 else f"/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), made, name=name, **attributes))
        return made

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A Gemm with bias."""
        weight = self.normal(outputs, inputs, scale=inputs**-0.5)
        return self.node("Gemm", x, weight, self.normal(outputs, scale=0.2), transB=1)

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        bias: bool = True,
        group: int = 1,
        **attributes: Any,
    ) -> str:
        """A Conv with a square kernel."""
        shape = (outputs, inputs // group, kernel, kernel)
        operands = [x, self.normal(*shape, scale=(shape[1] * kernel**2) ** -0.5)]
        if bias:
            operands.append(self.normal(outputs, scale=0.2))
        if group > 1:
            attributes["group"] = group
        return self.node("Conv", *operands, kernel_shape=[kernel, kernel], **attributes)

    def batch_norm(self, x: str, channels: int) -> str:
        """A BatchNormalization with statistics of its own."""
        statistics = [
            self.constant(self.random.uniform(0.5, 1.5, channels)),
            self.normal(channels, scale=0.3),
            self.normal(channels, scale=0.3),
            self.constant(self.random.uniform(0.5, 1.5, channels)),
        ]
        return self.node("BatchNormalization", x, *statistics, epsilon=1e-5)

    def model(
        self,
        result: str,
        given: Sequence[int],
        returned: Sequence[int],
        *,
        batch: str | int = "N",
        dtype: int = TensorProto.FLOAT,
        inputs: Sequence[str] = ("input",),
    ) -> onnx.ModelProto:
        """The model from ``inputs`` (one sample: ``given``) to ``result`` (one sample: ``returned``)."""
        return self.models(
            dict.fromkeys(inputs, (TensorProto.FLOAT, given)), {result: (dtype, returned)}, batch=batch
        )

    def models(
        self,
        inputs: dict[str, tuple[int, Sequence[int]]],
        outputs: dict[str, tuple[int, Sequence[int]]],
        *,
        batch: str | int = "N",
    ) -> onnx.ModelProto:
        """The model with inputs and outputs of any number: element type and shape of one sample, by name."""
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(k, t, [batch, *shape]) for k, (t, shape) in inputs.items()],
            [helper.make_tensor_value_info(k, t, [batch, *shape]) for k, (t, shape) in outputs.items()],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
