"""How many bits a tensor is quantized to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...analysis.regions.regions import Regions
from ...ir.graph import variable_inputs
from .settings import QuantizationSettings

INPUT_BITS = 6
"""Bits of inputs, as a rule. They cost nothing in bootstraps."""
FINE_INPUT_BITS = 8
"""Bits of inputs where weights need 5 bits and more: the network is steep, and finer inputs help."""
MAX_FINE_INPUTS = 64
"""Inputs of a layer up to which they are finer: accumulators of more leave no room for gains then."""


def input_bits(weights: int, regions: Regions) -> int:
    """Bits of the inputs that go with a width of the weights."""
    layers = [linear_of(n) for n in regions.server if n.inputs and is_fresh(n.inputs[0], regions)]
    widest = max((x.matrix().shape[1] for x in layers if x is not None), default=0)
    return FINE_INPUT_BITS if weights > 4 and widest <= MAX_FINE_INPUTS else INPUT_BITS


def is_fresh(value: ir.Value | None, regions: Regions) -> bool:
    """Whether a tensor is made of what the client encrypts: no bootstrap's noise grows with its weights."""
    pending = [value]
    while pending:
        current = pending.pop()
        if current is None or current in regions.inputs:
            continue
        if current in regions.quantized or (made := current.producer()) is None:
            return False
        pending.extend(variable_inputs(made))
    return True


def common_bits(options: QuantizationSettings, regions: Regions, group: Sequence[ir.Value]) -> int:
    """Bits of tensors that have one quantizer: as many as any of them asks for and all leave room for."""
    return min(
        max(_bits(options, regions, v) for v in group), *(_most_bits(options, regions, v) for v in group)
    )


def _bits(options: QuantizationSettings, regions: Regions, value: ir.Value) -> int:
    if _is_condition(value):
        return 1
    tensor = regions.tensors.get(value)
    if tensor is None:
        readers = [n for n in value.consumers() if n in set(regions.server)]
        return options.bits("inputs", value.producer(), *readers)
    return options.bits("activations", regions.bases[value].producer(), value.producer())


def _most_bits(options: QuantizationSettings, regions: Regions, value: ir.Value) -> int:
    """What the tables of operators on several encrypted elements leave room for."""
    operands = int(options.operands)
    if value in regions.paired:
        return (operands + 2) // 2
    return operands if value in regions.operands else 8


def _is_condition(value: ir.Value) -> bool:
    """Whether a tensor is a condition seen as a number."""
    made = value.producer()
    given = made.inputs[0] if made is not None and made.op_type == "Cast" else None
    return given is not None and given.dtype is ir.DataType.BOOL
