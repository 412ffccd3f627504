"""The cost model: what a network costs, from bits that reach tables, weight norms and output widths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.graph import is_dialect
from ..analyze_bit_widths import table_width
from ..expanding.expand import expanded
from .bootstrap import EXTRACTED, bootstrap_complexity, milliseconds
from .demand import demands
from .groups import NARROWED, before_rounding, group_widths
from .layers import layer_of
from .regions import find_regions


@dataclass(frozen=True)
class LayerCost:
    """One table lookup of the model.

    Attributes:
        name: The layer that feeds it.
        table_bits: Bits that reach the table: more than it declares where that are many and something wider
            meets its accumulator.
        bootstraps: For one sample.
        complexity: Operations, all bootstraps of the layer.
        demand: How exact its result has to be, in bits.
    """

    name: str
    table_bits: int
    bootstraps: int
    complexity: float
    demand: float


@dataclass(frozen=True)
class CostEstimate:
    """The cost of one sample.

    Attributes:
        layers: One entry for each table lookup.
    """

    layers: tuple[LayerCost, ...]

    @property
    def bootstraps(self) -> int:
        """Programmable bootstraps."""
        return sum(layer.bootstraps for layer in self.layers)

    @property
    def complexity(self) -> float:
        """Operations, comparable to Concrete's own prediction."""
        return sum(layer.complexity for layer in self.layers)

    @property
    def milliseconds(self) -> float:
        """Time on one core like the one the table was measured on."""
        return sum(
            layer.bootstraps * milliseconds(layer.complexity / max(1, layer.bootstraps))
            for layer in self.layers
        )


def estimate(model: ir.Model) -> CostEstimate:
    """Estimate a model of the integer level, tables fused; maxima and products as the lookups they become."""
    model = expanded(model)
    asked, widths = demands(model), group_widths(model)
    layers = []
    for node in model.graph:
        if is_dialect(node, "TableLookup"):
            layers.append(_lookup(node, asked.get(node.outputs[0], 0.0), widths))
    return CostEstimate(tuple(layers))


def _lookup(node: ir.Node, demand: float, widths: dict[ir.Value, int]) -> LayerCost:
    width = table_width(node)
    bits = width.table_bits
    if width.accumulator_bits == bits > NARROWED:
        bits = max(bits, widths[before_rounding(node)])
    extra = width.bootstraps - width.lookups
    complexity = width.lookups * bootstrap_complexity(bits, demand) + 1e6 * EXTRACTED * extra
    return LayerCost(layer_of(node)[0], bits, width.bootstraps, complexity, demand)


def estimate_float(model: ir.Model, table_bits: int = 4) -> CostEstimate:
    """Estimate a normalized float model as it will be with ``table_bits`` bits at every table."""
    layers = []
    for value in find_regions(model).quantized:
        count = math.prod(d for d in list(value.shape or [])[1:] if isinstance(d, int))
        producer = value.producer()
        name = str(producer.name) if producer is not None else str(value.name)
        each = bootstrap_complexity(table_bits)
        layers.append(LayerCost(name, table_bits, count, count * each, 0.0))
    return CostEstimate(tuple(layers))
