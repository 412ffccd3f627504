"""Integer tensors with coarser steps: the linear operators that make them are copied with smaller weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...ir.graph import constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.movement import may_move
from .views import rank_of


@dataclass(frozen=True)
class Coarser:
    """Makes coarser copies of integer tensors.

    Attributes:
        edit: Makes the nodes.
    """

    edit: IntegerEditor

    def __call__(self, value: ir.Value, factor: np.ndarray) -> ir.Value | None:
        """``value / factor``, by smaller integer weights; None where no linear operator makes it."""
        node = value.producer()
        if node is None or node.domain != "" or not _fits(value, factor):
            return None
        if node.op_type in ("Mul", "Add", "Sub") and constant_of(node.inputs[1]) is not None:
            return self._with_constant(node, factor)
        if node.op_type in ("Add", "Sub"):
            parts = [self(v, factor) for v in node.inputs if v is not None]
            return None if None in parts else self._again(node, parts)
        if (may_move(node) or node.op_type == "ReduceSum") and factor.size == 1:
            source = node.inputs[0]
            alone = [v for v in node.inputs if v is not None and constant_of(v) is None] == [source]
            part = (
                self(source, factor.reshape([1] * rank_of(source))) if source is not None and alone else None
            )
            return None if part is None else self._again(node, [part, *node.inputs[1:]])
        return self._coarser_weights(node, factor)

    def _with_constant(self, node: ir.Node, factor: np.ndarray) -> ir.Value | None:
        data, constant = node.inputs[0], constant_of(node.inputs[1])
        assert data is not None
        assert constant is not None
        if node.op_type == "Mul":
            # Multiples stay whole: what they cannot give goes on to where the tensor comes from.
            moved = np.sign(constant) * np.ceil(np.abs(constant) / factor)
            factor = factor * np.divide(moved, constant, out=np.ones(moved.shape), where=moved != 0)
        else:
            moved = np.rint(constant / factor)
        part = self(data, factor)
        if part is None:
            return None
        return self._again(node, [part, self.edit.constant(f"{node.name}_coarser_constant", moved)])

    def _coarser_weights(self, node: ir.Node, factor: np.ndarray) -> ir.Value | None:
        linear = linear_of(node)
        if linear is None:
            return None
        axis = linear.channel_axis % factor.ndim
        if any(n > 1 for i, n in enumerate(factor.shape) if i != axis):
            return None
        shape = [-1 if i == linear.out_axis else 1 for i in range(len(linear.shape))]
        codes = np.rint(linear.weight / factor.reshape(shape))
        weight = self.edit.constant(f"{node.name}_coarser_integers", codes)
        return self._again(node, [node.inputs[0], weight, *node.inputs[2:]])

    def _again(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
        """A copy of ``node`` on other inputs."""
        attributes = list(node.attributes.values())
        return self.edit.add(node.op_type, inputs, f"{node.name}_coarser", attributes, like=node.outputs[0])


def _fits(value: ir.Value, factor: np.ndarray) -> bool:
    """Whether a tensor has an entry of its own for each factor: otherwise it would have to grow."""
    sizes = list(value.shape or [])
    return factor.ndim == len(sizes) and all(
        n == 1 or d != 1 for n, d in zip(factor.shape, sizes, strict=True)
    )
