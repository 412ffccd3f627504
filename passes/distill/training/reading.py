"""What a qdq model has that training changes: weights, activation quantizers, bases of tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.regions.regions import POOLS
from ....ir.graph import LAYOUT, LINEAR, constant_of, variable_inputs
from ....ir.ops import ActivationQuantizer


@dataclass(frozen=True)
class Quantizer:
    """QuantizeLinear, perhaps Clip, and DequantizeLinear.

    Attributes:
        quantize, dequantize: Its ends.
        scale: For the whole tensor.
        zero_point: Integer that stands for 0.
        low, high: Smallest and largest integer.
    """

    quantize: ir.Node
    dequantize: ir.Node
    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def source(self) -> ir.Value:
        """What is quantized."""
        value = self.quantize.inputs[0]
        assert value is not None
        return value


def quantizers(model: ir.Model) -> list[Quantizer]:
    """The quantizers of activations and inputs, in order."""
    found = []
    for node in model.graph:
        triple = ActivationQuantizer.match(node)
        if triple is None or constant_of(triple.source) is not None:
            continue
        scale, zero = triple.dequantize.scale, triple.dequantize.zero_point
        if scale is None or scale.size != 1:
            continue
        zero_point = 0 if zero is None else int(zero.reshape(()))
        low, high = triple.dequantize.code_range
        found.append(Quantizer(triple.quantize.node, node, float(scale.reshape(())), zero_point, low, high))
    return found


def weight_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node]]:
    """(linear operator, DequantizeLinear of its weight), in order."""
    for node in model.graph:
        if node.op_type not in LINEAR or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        producer = node.inputs[1].producer()
        dequantized = producer is not None and producer.op_type == "DequantizeLinear"
        if producer is not None and dequantized and constant_of(producer.inputs[0]) is not None:
            yield node, producer


def base_of(value: ir.Value) -> ir.Value:
    """The tensor that ``value`` is an element-wise function of: what its table will read."""
    found = _sources(value, {})
    return next(iter(found)) if len(found) == 1 else value


def _sources(value: ir.Value, known: dict[ir.Value, set[ir.Value]]) -> set[ir.Value]:
    if value not in known:
        producer = value.producer()
        stop = producer is None or producer.op_type in LINEAR | LAYOUT | POOLS | {
            "DequantizeLinear",
            "MaxPool",
        }
        if producer is None or stop:
            known[value] = {value}
        else:
            inside = [_sources(v, known) for v in variable_inputs(producer)]
            joined = set().union(*inside) if inside else {value}
            known[value] = joined if len(joined) == 1 else {value}
    return known[value]


def feeds_join(value: ir.Value) -> bool:
    """Whether ``value`` meets another tensor in an addition (or concat), through layout at most."""
    pending = [value]
    while pending:
        for reader in pending.pop().consumers():
            if len(variable_inputs(reader)) > 1 and reader.op_type not in {"Gemm", "MatMul", "Conv"}:
                return True
            if reader.op_type in LAYOUT | POOLS or (
                reader.op_type in {"Add", "Sub"} and reader.op_type != "QuantizeLinear"
            ):
                pending.extend(reader.outputs)
    return False
