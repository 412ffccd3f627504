"""Bits around a table lookup, and the bootstraps that it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from ...ir import dialect
from ...ir.graph import constant_of


@dataclass(frozen=True)
class TableWidth:
    """Widths around one TableLookup.

    Attributes:
        low, high: Declared range of the accumulator before rounding, all channels together.
        accumulator_bits: L: bits of the index that the table is entered with, before rounding.
        table_bits: P: bits that reach the table.
        lookups: Elements, for one sample.
        bootstraps: Programmable bootstraps, those of exact rounding (one for each bit removed) included.
    """

    low: int
    high: int
    accumulator_bits: int
    table_bits: int
    lookups: int
    bootstraps: int


def table_width(table: ir.Node) -> TableWidth:
    """The widths of a TableLookup, from what it declares."""
    values, first = constant_of(table.inputs[1]), constant_of(table.inputs[2])
    assert values is not None
    assert first is not None
    step, size = table.attributes.get_int("step", 1) or 1, values.shape[1]
    source = table.inputs[0]
    producer = source.producer() if source is not None else None
    removed, exact = 0, False
    if producer is not None and producer.domain == dialect.DOMAIN and producer.op_type == "RoundBits":
        removed = producer.attributes.get_int("lsbs_to_remove", 0) or 0
        exact = producer.attributes.get_string("mode", "exact") == "exact"
    table_bits = max(1, math.ceil(math.log2(size)))
    shape = list(table.outputs[0].shape or [])[1:]
    lookups = math.prod(d for d in shape if isinstance(d, int))
    last = int(first.max()) + (size - 1) * step + (step // 2 - 1 if removed else 0)
    return TableWidth(
        int(first.min()), last, table_bits + removed, table_bits, lookups, lookups * (1 + removed * exact)
    )
