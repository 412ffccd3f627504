"""What the client computes between a quantizer and the first encrypted operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.regions import POOLS
from ...ir.graph import LAYOUT, LINEAR, constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import ActivationQuantizer, DequantizeLinear


def quantize_again(layers: list[ir.Node], edit: IntegerEditor) -> None:
    """Put a quantizer behind what the client moves or chooses (MaxPool, Slice, Concat) of a quantized input.

    Such values are integers times a scale as before, so quantizing them once more changes nothing; but now
    they are encrypted behind these operators, which the client computes for nothing, not in front of them.
    """
    for layer in layers:
        value = layer.inputs[0]
        if value is None:
            continue
        between, quantizers = _path(value)
        if quantizers is None or all(n.op_type in LAYOUT | POOLS for n in between):
            continue
        first = quantizers[0]
        if not all(_same(first, other) for other in quantizers[1:]):
            continue
        edit.at(layer)
        layer.replace_input_with(0, _copy(first, value, edit))


def computes(value: ir.Value) -> bool:
    """Whether the client has a value: no linear operator comes before it."""
    node = value.producer()
    return node is None or not _encrypted(node)


def _path(value: ir.Value) -> tuple[list[ir.Node], list[ir.Node] | None]:
    """Operators between ``value`` and the quantizers of the client; None where it is not the client's."""
    between: list[ir.Node] = []
    quantizers: list[ir.Node] = []
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        node = current.producer()
        if node in seen:
            continue
        if node is None:
            return between, None
        seen.add(node)
        if node.op_type == "DequantizeLinear":
            quantizers.append(node)
        else:
            between.append(node)
            pending.extend(variable_inputs(node))
    for quantizer in quantizers:
        if _encrypted(quantizer):
            return between, None
    return between, quantizers or None


def _encrypted(node: ir.Node) -> bool:
    """Whether a linear operator comes before this node."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op_type in LINEAR:
            return True
        pending.extend(p for v in variable_inputs(current) if (p := v.producer()) is not None)
    return False


def _same(first: ir.Node, second: ir.Node) -> bool:
    arrays = [[constant_of(v) for v in n.inputs[1:]] for n in (first, second)]
    return len(arrays[0]) == len(arrays[1]) and all(
        a is not None and b is not None and a.size == 1 and np.array_equal(a, b)
        for a, b in zip(*arrays, strict=True)
    )


def _copy(first: ir.Node, value: ir.Value, edit: IntegerEditor) -> ir.Value:
    """The quantizer that ends in ``first``, on ``value``."""
    dequantize = DequantizeLinear.of(first)
    scale, *zero = first.inputs[1:]
    ends = () if dequantize.clip is None else dequantize.clip.inputs[1:]
    made = ActivationQuantizer.insert(
        edit, value, f"{value.name}_again", scale=scale, zero_point=zero[0] if zero else None, ends=ends
    )
    return made.output
