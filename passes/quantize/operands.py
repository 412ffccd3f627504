"""Choosing the bits of what products, maxima and functions of pairs of encrypted elements read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from ...analysis.cost.bootstrap import bootstrap_complexity
from ...analysis.outputs.divergence import output_error, outputs
from ...analysis.regions.regions import PRODUCTS, Regions
from ...ir.movement import sample_shape
from ..framework.base import Context

MIN_OPERAND_BITS = 4
"""Bits of what products and maxima read, where the outputs lose little by it."""
MAX_OPERAND_BITS = 7
"""Most bits of what they read: the sum of two needs one more, and tables of 8 bits are the widest."""
WORTHWHILE_ERROR_SHARE = 0.9
"""A bit more has to bring the output error down to this share: past that, what is lost is lost elsewhere."""
AFFORDABLE_OPERATIONS = 10e9
"""Operations of all tables of such operators up to which they get more bits than the fewest."""


def choose_operands(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    regions: Regions,
    tolerance: float,
    quantized: Callable[[ir.Model, int], None],
    context: Context,
) -> int:
    """The fewest bits that keep the outputs within a tolerance, or the most that bring something.

    Args:
        model: The float model; not changed.
        data: Calibration inputs.
        regions: Regions of the model.
        tolerance: Mean squared error of the outputs over their variance.
        quantized: Quantizes a model in place with so many bits.
        context: For progress and notes.
    """
    if not regions.operands and not regions.paired:
        return MIN_OPERAND_BITS
    wanted, found = outputs(model, data), dict[int, float]()
    for bits in range(MIN_OPERAND_BITS, MAX_OPERAND_BITS + 1):
        if bits > MIN_OPERAND_BITS and _price(regions, bits) > AFFORDABLE_OPERATIONS:
            break
        context.progress(
            "choose bits of products and maxima",
            bits - MIN_OPERAND_BITS,
            MAX_OPERAND_BITS - MIN_OPERAND_BITS + 1,
        )
        tried = model.clone()
        quantized(tried, bits)
        found[bits] = output_error(outputs(tried, data), wanted)
        if found[bits] <= tolerance or found[bits] > WORTHWHILE_ERROR_SHARE * found.get(bits - 1, math.inf):
            break
    best = min(found, key=lambda b: (found[b] * WORTHWHILE_ERROR_SHARE > min(found.values()), b))
    if best > MIN_OPERAND_BITS:
        context.notes.append(
            f"quantize: products and maxima of encrypted values read {best} bits rather than"
            f" {MIN_OPERAND_BITS}, which leave an output error of {found[best]:.2%} of the variance rather"
            f" than {found[MIN_OPERAND_BITS]:.2%}"
        )
    return best


def _price(regions: Regions, bits: int) -> float:
    """Operations of all tables that operators on several encrypted elements need, about."""
    total = 0.0
    for node in regions.server:
        read = [v for v in node.inputs if v is not None]
        if any(v in regions.paired for v in read):
            total += _elements(node.outputs[0]) * bootstrap_complexity((bits + 2) // 2 * 2)
        elif any(v in regions.operands for v in read):
            tables = sum(_elements(v) for v in (*read, *node.outputs))
            if node.op_type in PRODUCTS:
                inner = (sample_shape(read[0]) or (1,))[-1] if node.op_type == "MatMul" else 1
                tables = 2 * inner * _elements(node.outputs[0])
            total += tables * bootstrap_complexity(bits + 1)
    return total


def _elements(value: ir.Value) -> int:
    return math.prod(sample_shape(value) or ())
