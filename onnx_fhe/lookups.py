"""The table lookups that a circuit will have, as far as a model of any level tells."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .analysis.regions.linear import linear_of
from .analysis.regions.regions import PRODUCTS, Regions
from .backends.statistics import CircuitStatistics
from .ir.graph import MAXIMA, variable_inputs


@dataclass(frozen=True)
class LookupInfo:
    """A table lookup that the circuit will have.

    Attributes:
        layer: Name of the node whose accumulator it takes in.
        operator: Operator of that node.
        elements: Lookups for one sample, one bootstrap each (more with exact rounding); None if not known.
    """

    layer: str
    operator: str
    elements: int | None


def lookups_of_regions(regions: Regions) -> list[LookupInfo]:
    """The lookups behind the quantizers that a float model will have."""
    found = []
    for value in regions.quantized:
        node = _layer_of(value, regions)
        if node is not None:
            found.append(LookupInfo(node.name or "", node.op_type, _elements(value)))
    return found


def takes_several(regions: Regions) -> bool:
    """Whether there are maxima, products or functions of a pair: they take lookups behind no quantizer."""
    return bool(regions.operands or regions.paired or regions.settling) or any(
        n.op_type in MAXIMA or (n.op_type in PRODUCTS and len(variable_inputs(n)) > 1) for n in regions.server
    )


def _layer_of(value: ir.Value, regions: Regions) -> ir.Node | None:
    """The node whose accumulator a quantized tensor is a function of, or the first one behind an input."""
    behind: ir.Node | None = None
    while True:
        node = value.producer()
        if node is None:
            return behind
        behind = node
        bases = {regions.tensors[v].base for v in variable_inputs(node) if v in regions.tensors}
        if linear_of(node) is not None or len(bases) != 1:
            return node
        (value,) = bases


def lookups_of_quantizers(server: list[ir.Node]) -> list[LookupInfo]:
    """The lookups of a qdq model: one behind each quantizer of its encrypted nodes, ``server``."""
    found = []
    for node in server:
        if node.op_type == "QuantizeLinear":
            layer = node
            while linear_of(layer) is None and len(variable := variable_inputs(layer)) == 1:
                layer = variable[0].producer() or layer
            found.append(LookupInfo(layer.name or "", layer.op_type, _elements(node.outputs[0])))
    return found


def lookups_of_layers(statistics: CircuitStatistics) -> list[LookupInfo]:
    """The lookups of an integer model, from what its layers cost."""
    return [
        LookupInfo(x.name, x.operator, x.programmable_bootstraps)
        for x in statistics.layers
        if x.programmable_bootstraps
    ]


def _elements(value: ir.Value) -> int | None:
    if value.shape is None:
        return None
    count = 1
    for size in value.shape.dims[1:]:
        if not isinstance(size, int):
            return None
        count *= size
    return count
