"""A network that grows node by node, with the values of its tensors known all the time.

Shapes are what onnxruntime computes, and weights are drawn so that activations vary as those of a trained
network do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..ir.errors import ModelError
from ..ir.runtime import Session
from .builder import Builder
from .choices import Choices


@dataclass(frozen=True)
class Tensor:
    """A value of the network.

    Attributes:
        name: Its name.
        array: What it is on the data that the network grows on, samples on axis 0.
    """

    name: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.array.shape[1:]

    @property
    def channels(self) -> int:
        """Size of axis 1."""
        return self.array.shape[1]


class Grower(Builder):
    """A ``Builder`` that runs each node as it is made.

    Args:
        choices: Makes the decisions.
        seed: Seeds the weights.
        opset: ai.onnx opset of the model.
        spoiled: Share of the layers with a dead, repeated or tiny channel.
    """

    def __init__(self, choices: Choices, seed: int, opset: int = 17, spoiled: float = 0.2) -> None:
        super().__init__(opset, seed)
        self.choices = choices
        self.spoiled = spoiled

    def apply(self, op: str, *operands: Tensor | str, **attributes: Any) -> Tensor:
        """A node with one output; operands are tensors, or names of constants."""
        return self.apply_many(op, *operands, outputs=1, **attributes)[0]

    def apply_many(self, op: str, *operands: Tensor | str, outputs: int, **attributes: Any) -> list[Tensor]:
        """A node with several outputs."""
        names = [o.name if isinstance(o, Tensor) else o for o in operands]
        made = self.split(op, *names, outputs=outputs, **attributes)
        given = {o.name: o.array for o in operands if isinstance(o, Tensor)}
        found = self._run(self.nodes[-1], given)
        return [Tensor(name, found[name]) for name in made]

    def layer(
        self, op: str, x: Tensor, weight: np.ndarray, bias: np.ndarray | None, **attributes: Any
    ) -> Tensor:
        """A linear operator whose weights are scaled so that its outputs have unit variance.

        Follows the layer-sequential unit-variance initialization of Mishkin and Matas (arXiv:1511.06422);
        outputs are nearly centred as well, as behind a BatchNormalization.

        Args:
            op: ``Gemm``, ``Conv`` or ``MatMul``.
            x: What it reads.
            weight: In the operator's own layout.
            bias: Its spread, one number for each channel; None for a layer without bias. ``MatMul`` gets an
                Add.
            attributes: Attributes of the node.
        """
        trial = self._run(
            helper.make_node(op, [x.name, "weight"], ["trial"], **attributes),
            {x.name: x.array, "weight": weight.astype(np.float32)},
        )["trial"]
        axes = (*range(trial.ndim - 1),) if op == "MatMul" else (0, *range(2, trial.ndim))
        spread = float(np.sqrt(trial.var(axis=axes).mean()))
        gain = 1 / spread if spread > 1e-6 * (1e-30 + np.abs(trial).max()) else 1.0
        named = self.constant(weight * gain)
        if bias is None:
            return self.apply(op, x, named, **attributes)
        centred = bias - gain * trial.mean(axis=axes)
        if op == "MatMul":
            return self.apply("Add", self.apply(op, x, named, **attributes), self.constant(centred))
        return self.apply(op, x, named, self.constant(centred), **attributes)

    def integers(self, *values: int) -> str:
        """A constant of int64, as axes and sizes are given."""
        return self.constant(list(values), np.int64)

    def _run(self, node: onnx.NodeProto, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        weights = {w.name: w for w in self.weights}
        opsets = [helper.make_opsetid("", self.opset)]
        graph = helper.make_graph(
            [node],
            "one",
            [_info(k, v) for k, v in given.items()],
            [helper.make_empty_tensor_value_info(o) for o in node.output],
            [weights[i] for i in node.input if i in weights and i not in given],
        )
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        found = Session(model).run(given)
        del graph.output[:]
        model.graph.CopyFrom(graph)
        model.graph.output.extend(_info(k, v) for k, v in found.items())
        try:
            onnx.checker.check_model(model, full_check=True)
        except onnx.shape_inference.InferenceError as error:
            # onnxruntime and ONNX count windows that reach past the padding differently.
            raise ModelError("ONNX and onnxruntime disagree about a shape", found=str(error)) from error
        return found


def _info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def spread_of(x: Tensor) -> np.ndarray:
    """Standard deviation of each channel: (channels); 1 where nothing varies but float rounding."""
    axes = (0, *range(2, x.array.ndim))
    spread, level = x.array.std(axis=axes, dtype=np.float64), np.abs(x.array).max(axis=axes)
    return np.asarray(np.where(spread > 1e-5 * level, spread, 1.0))


def channel_constant(g: Grower, x: Tensor, array: Sequence[float] | np.ndarray) -> str:
    """A constant with a number for each channel, shaped so that it broadcasts."""
    return g.constant(np.asarray(array).reshape(x.channels, *[1] * (len(x.shape) - 1)))
