"""Layers: which node a table belongs to in the eyes of the user."""

from __future__ import annotations

import onnx_ir as ir

from ..ir.partition import encrypted_inputs, is_dialect
from .base import LayerStatistics

LINEAR = frozenset({"Gemm", "MatMul", "Conv"})
LAYOUT = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"})


def layer_of(value: ir.Value) -> ir.Node | None:
    """The node that computes what ``value`` holds, seen through layout, constants and rounding.

    That is a linear operator, a sum of two tensors, or a ReduceSum; None where a table or an input
    comes first.
    """
    node = value.producer()
    while node is not None:
        if node.domain == "" and (node.op_type in LINEAR or node.op_type == "ReduceSum"):
            return node
        if is_dialect(node, "TableLookup") or is_dialect(node, "Encrypt"):
            return None
        inputs = encrypted_inputs(node)
        if len(inputs) != 1:
            return node
        node = inputs[0].producer()
    return None


def merge_layers(layers: list[LayerStatistics]) -> list[LayerStatistics]:
    """Layers of the same name as one: bootstraps add up, the widest widths hold."""
    merged: dict[str, LayerStatistics] = {}
    for new in layers:
        old = merged.get(new.name)
        merged[new.name] = (
            new
            if old is None
            else LayerStatistics(
                new.name,
                new.operator,
                max(old.accumulator_bits, new.accumulator_bits),
                max(old.table_bits, new.table_bits),
                old.programmable_bootstraps + new.programmable_bootstraps,
            )
        )
    return list(merged.values())
