"""Normalizations inside the encrypted part, in parts that circuits are made of.

Means are linear, squares and roots work element by element; what is left is a product of two encrypted
tensors. The client's part keeps the operators as they are: there they cost nothing.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant_of, float_of, int_of, ints_of, is_float, rank_of
from ..framework.rewriting import Refusal
from .parts import Parts
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx


class SplitNormalization(Rule[ir.Node]):
    """LayerNormalization, RMSNormalization, Instance-, Group- and MeanVarianceNormalization in parts."""

    name: ClassVar[str] = "split-normalization"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node."""
        if not is_onnx(
            node,
            "LayerNormalization",
            "RMSNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "MeanVarianceNormalization",
        ):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        if shapes.dims_of(node.inputs[0]) is None or (
            node.op_type == "GroupNormalization" and shapes.static_of_sample(node.inputs[0]) is None
        ):
            return NOT_STATIC
        if any(v is not None and constant_of(v) is None for v in node.inputs[1:]):
            return Refusal("its scale or bias is not constant")
        return node

    def apply(self, match: ir.Node) -> None:
        """Write the parts."""
        node, parts, x = match, Parts(self.edit, match), match.inputs[0]
        rank, epsilon = rank_of(x), float_of(node, "epsilon", 1e-5)
        assert rank is not None
        scale, bias = (constant_of(v) for v in [*node.inputs, None, None][1:3])
        if node.op_type in ("LayerNormalization", "RMSNormalization"):
            axes = list(range(int_of(node, "axis", -1) % rank, rank))
            value, mean, factor = parts.normalized(x, axes, epsilon, node.op_type == "LayerNormalization")
            for extra, found in zip(node.outputs[1:], (mean, factor), strict=False):
                if found is not None and (extra.uses() or extra.is_graph_output()):
                    self.edit.stand_in(extra, found)
        elif node.op_type == "MeanVarianceNormalization":
            value = parts.normalized(x, ints_of(node, "axes") or [0, 2, 3], 1e-9, True)[0]
        else:
            value = self._by_channel(parts, node, x, rank, epsilon)
            along = (-1, *[1] * (rank - 2))
            scale, bias = (None if a is None else a.reshape(along) for a in (scale, bias))
        for extra in node.outputs[1:]:
            extra.name = None
        node.resize_outputs(1)
        one = np.ones(1, parts.dtype)
        product = parts.add("Mul", value, parts.array(one if scale is None else scale), part="scaled")
        self.edit.substitute(node, "Add", [product, parts.array(0 * one if bias is None else bias)])

    @staticmethod
    def _by_channel(parts: Parts, node: ir.Node, x: ir.Value | None, rank: int, epsilon: float) -> ir.Value:
        """Instance- and GroupNormalization, whose scale and bias are by channel."""
        if node.op_type == "InstanceNormalization":
            return parts.normalized(x, list(range(2, rank)), epsilon, True)[0]
        sample = shapes.static_of_sample(x)
        assert sample is not None
        groups = int_of(node, "num_groups", 1)
        split = parts.add("Reshape", x, parts.indices([-1, groups, int(np.prod(sample)) // groups]))
        flat = parts.normalized(split, [2], epsilon, True)[0]
        return parts.add("Reshape", flat, parts.indices([-1, *sample]), part="joined")


class SplitLocalResponse(Rule[tuple[ir.Node, list[int]]]):
    """LRN: ``x * (bias + alpha * mean of the squares of neighbouring channels) ** -beta``."""

    name: ClassVar[str] = "split-local-response"

    def match(self, node: ir.Node) -> tuple[ir.Node, list[int]] | Refusal | None:
        """The node and the shape of a sample."""
        if not is_onnx(node, "LRN"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        sample = shapes.static_of_sample(node.inputs[0])
        return NOT_STATIC if sample is None else (node, sample)

    def apply(self, match: tuple[ir.Node, list[int]]) -> None:
        """Write the parts."""
        node, sample = match
        parts, x, size = Parts(self.edit, node), node.inputs[0], int_of(node, "size", 1)
        before = (size - 1) // 2
        flat = parts.indices([-1, 1, sample[0], int(np.prod(sample[1:]))])
        image = parts.add("Reshape", parts.square(x), flat, part="image")
        pads = [before, 0, size - 1 - before, 0]
        mean = parts.add(
            "AveragePool", image, part="mean", kernel_shape=[size, 1], pads=pads, count_include_pad=1
        )
        mean = parts.add("Reshape", mean, parts.indices([-1, *sample]), part="channels")
        scaled = parts.add("Mul", mean, parts.number(float_of(node, "alpha", 1e-4)), part="scaled")
        shifted = parts.add("Add", scaled, parts.number(float_of(node, "bias", 1.0)), part="shifted")
        factor = parts.add("Pow", shifted, parts.number(-float_of(node, "beta", 0.75)), part="factor")
        self.edit.substitute(node, "Mul", [x, factor])
