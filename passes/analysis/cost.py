"""A first cost model: what a network costs, from bits that reach tables, weight norms and output widths.

The numbers were measured with Concrete's optimizer (concrete-python 2.11, 128 bits of security, p_error
1e-5 for each lookup): complexity of one bootstrap, and the time that one took on one core of an AMD EPYC.
What a bootstrap of P bits costs depends on what its result must bear: the 2-norm of the integer weights
that follow, against the bits that the next table (or the decryption) tells apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir import dialect
from ..analyze_bit_widths import table_width
from .layers import layer_of
from .linear import linear_of
from .regions import find_regions

COMPLEXITY = {1: 40.0, 2: 48.0, 3: 57.0, 4: 74.0, 5: 102.0, 6: 240.0, 7: 560.0, 8: 1250.0}
"""Millions of operations for one bootstrap by bits of the table, where little noise is asked of it."""
WIDE_STEP = 2.4
"""What each bit past 8 multiplies by."""
LEVELS = (1.0, 1.44, 1.85)
"""Factor for a decomposition level more, and for two."""
ROOM = 64.0
"""How much the norm may grow until the next level is needed."""
EXTRACTED = 65.0
"""Millions of operations for each bit that exact rounding removes."""
TABLE_NORM, TABLE_FALL = 64.0, 3.2
OUTPUT_NORM, OUTPUT_FALL = 7.0, 2.0
"""Largest norm in front of a table of 4 bits, or an output of 8, on the first level.

Each bit more divides it."""
MILLISECONDS = ((27, 12), (32, 14), (48, 15), (79, 19), (116, 24), (502, 99), (1158, 224), (2610, 1000))
"""Measured (complexity in millions, milliseconds on one core)."""


@dataclass(frozen=True)
class LayerCost:
    """One table lookup of the model.

    Attributes:
        name: The layer that feeds it.
        table_bits: Bits that reach the table.
        bootstraps: For one sample.
        complexity: Operations, all bootstraps of the layer.
        level: 0 where the following weights are small enough for the cheapest bootstrap; 1 or 2 above.
    """

    name: str
    table_bits: int
    bootstraps: int
    complexity: float
    level: int


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


def milliseconds(complexity: float) -> float:
    """Time of one bootstrap of that complexity (operations)."""
    millions, times = zip(*MILLISECONDS, strict=True)
    found = float(np.interp(complexity / 1e6, millions, times))
    return float(found * max(1.0, complexity / 1e6 / millions[-1]))


def bootstrap_complexity(bits: int, level: int = 0) -> float:
    """Operations of one bootstrap.

    Args:
        bits: Bits of the table.
        level: Decomposition levels more than the least.
    """
    base = COMPLEXITY.get(bits) or COMPLEXITY[8] * WIDE_STEP ** (bits - 8)
    return float(1e6 * base * LEVELS[level])


def estimate(model: ir.Model) -> CostEstimate:
    """Estimate a model of the integer level, tables fused."""
    layers = []
    for node in model.graph:
        if node.domain != dialect.DOMAIN or node.op_type != "TableLookup":
            continue
        width = table_width(node)
        level = _level(node.outputs[0])
        extra = width.bootstraps - width.lookups
        complexity = width.lookups * bootstrap_complexity(width.table_bits, level) + 1e6 * EXTRACTED * extra
        layers.append(LayerCost(layer_of(node)[0], width.table_bits, width.bootstraps, complexity, level))
    return CostEstimate(tuple(layers))


def estimate_float(model: ir.Model, table_bits: int = 4) -> CostEstimate:
    """Estimate a normalized float model as it will be with ``table_bits`` bits at every table."""
    layers = []
    for value in find_regions(model).quantized:
        count = math.prod(d for d in list(value.shape or [])[1:] if isinstance(d, int))
        producer = value.producer()
        name = str(producer.name) if producer is not None else str(value.name)
        layers.append(LayerCost(name, table_bits, count, count * bootstrap_complexity(table_bits), 0))
    return CostEstimate(tuple(layers))


def _level(value: ir.Value) -> int:
    """Decomposition levels that what follows a lookup asks for."""
    worst = 0.0
    for norm, bits, is_output in _demands(value):
        allowed = (
            OUTPUT_NORM / OUTPUT_FALL ** (bits - 8) if is_output else TABLE_NORM / TABLE_FALL ** (bits - 4)
        )
        worst = max(worst, norm / allowed)
    return 0 if worst <= 1 else 1 if worst <= ROOM else 2


def _demands(value: ir.Value) -> Iterable[tuple[float, int, bool]]:
    """Weight norm, bits told apart and whether it is an output, for all that reads a lookup."""
    pending: list[tuple[ir.Value, float]] = [(value, 1.0)]
    seen: set[tuple[ir.Value, float]] = set()
    while pending:
        current, norm = pending.pop()
        if (current, norm) in seen:
            continue
        seen.add((current, norm))
        for reader in current.consumers():
            if reader.domain == dialect.DOMAIN and reader.op_type == "TableLookup":
                yield norm, table_width(reader).table_bits, False
            elif reader.domain == dialect.DOMAIN and reader.op_type == "Decrypt":
                yield norm, _output_bits(reader), True
            else:
                linear = linear_of(reader)
                factor = 1.0
                if linear is not None:
                    factor = float(np.sqrt((linear.matrix() ** 2).sum(axis=1).max()))
                pending.extend((o, norm * factor) for o in reader.outputs)


def _output_bits(decrypt: ir.Node) -> int:
    span = (decrypt.attributes.get_int("high", 0) or 0) - (decrypt.attributes.get_int("low", 0) or 0)
    source = decrypt.inputs[0]
    producer = source.producer() if source is not None else None
    removed = 0
    if producer is not None and producer.op_type == "RoundBits":
        removed = producer.attributes.get_int("lsbs_to_remove", 0) or 0
    return max(1, math.ceil(math.log2(span + 1)) - removed)
