"""How much a node computes, roughly: multiplications of products, elements of everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

Shape = tuple[int, ...] | None


def operations(node: onnx.NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Operations of ``node``; as far as the shapes are known."""
    produced = sum(math.prod(s) for s in outputs if s is not None)
    first = inputs[0] if inputs else None
    second = inputs[1] if len(inputs) > 1 else None
    op = node.op_type
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul") and first:
        return produced * first[-1]
    if op == "Gemm" and first and len(first) == 2:
        flipped = any(a.name == "transA" and a.i for a in node.attribute)
        return produced * first[0 if flipped else 1]
    weight = inputs[3] if op == "QLinearConv" and len(inputs) > 3 else second
    if op in ("Conv", "ConvInteger", "QLinearConv") and weight and weight[0]:
        return produced * (math.prod(weight) // weight[0])
    if op == "ConvTranspose" and first and weight and weight[0]:
        return math.prod(first) * (math.prod(weight) // weight[0])
    if op == "Einsum":
        return max(produced, _einsum(node, inputs))
    return produced


def _einsum(node: onnx.NodeProto, inputs: Sequence[Shape]) -> int:
    """Every index once: what a contraction in one step costs."""
    equation = next((a.s for a in node.attribute if a.name == "equation"), b"").replace(b" ", b"")
    sizes: dict[int, int] = {}
    for term, shape in zip(equation.split(b"->")[0].split(b","), inputs, strict=False):
        if shape is not None and len(term) == len(shape):
            sizes.update(zip(term, shape, strict=True))
    return math.prod(sizes.values())
