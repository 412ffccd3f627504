"""What each table lookup of an integer model costs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...ir.ops import TableLookup
from ..widths.groups import MAX_NARROWED_BITS, group_widths
from ..widths.required_precision import required_precisions
from .bootstrap import EXTRACTION_MEGAOPS, bootstrap_of


@dataclass(frozen=True)
class LayerCost:
    """One table lookup of the model.

    Attributes:
        name: The layer that feeds it.
        table_bits: Bits that reach the table: more than it declares where that are many and something wider
            meets its accumulator.
        bootstraps: For one sample.
        complexity: Operations, all bootstraps of the layer.
        precision: How exact its result has to be, in bits.
        lookups: For one sample: bootstraps without those of exact rounding.
    """

    name: str
    table_bits: int
    bootstraps: int
    complexity: float
    precision: float
    lookups: int = 0


def lookup_costs(model: ir.Model, p_error: float) -> tuple[LayerCost, ...]:
    """The cost of every TableLookup, in order.

    Args:
        model: Integer level; maxima and products are lookups already.
        p_error: Tolerated error of one lookup.
    """
    asked, widths = required_precisions(model), group_widths(model)
    tables = TableLookup.all_in(model)
    return tuple(_cost(t, asked.get(t.output, 0.0), widths, p_error) for t in tables)


def _cost(lookup: TableLookup, precision: float, widths: dict[ir.Value, int], p_error: float) -> LayerCost:
    bits = lookup.table_bits
    if lookup.accumulator_bits == bits > MAX_NARROWED_BITS:
        bits = max(bits, widths[lookup.source])
    extra = lookup.bootstraps - lookup.elements
    each = bootstrap_of(bits, precision, p_error).complexity
    complexity = lookup.elements * each + 1e6 * EXTRACTION_MEGAOPS * extra
    return LayerCost(lookup.title[0], bits, lookup.bootstraps, complexity, precision, lookup.elements)
