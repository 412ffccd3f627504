"""How much has to go: a share of all units, shares of single layers, or as much as a latency asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from ..analysis.cost import bootstrap_complexity, milliseconds
from ..analysis.regions import find_regions
from .structure import Room, Structure, Unit

Layer = tuple[ir.Node, ...]
TABLE_BITS = 4
"""Bits that reach each table, where a latency is asked for before the widths are known."""


def share(ratio: float, count: int) -> int:
    """``ratio`` of ``count`` units, halves rounded up."""
    return math.floor(ratio * count + 0.5)


class Goal:
    """What is still to go, and whether a unit may.

    Args:
        structure: All units.
        removed: Units that have gone already; they count.
        ratio: Share of all units.
        uniform: Whether every layer loses that share, not only all layers together.
        layers: The share for single layers, by the name of a linear node that produces them.
        latency: Milliseconds for one sample; then ``ratio`` does not count.
        weight: For each unit the milliseconds that it takes.
        total: Milliseconds of the whole model.
    """

    def __init__(
        self,
        structure: Structure,
        removed: list[Unit],
        ratio: float,
        uniform: bool,
        layers: Mapping[str, float],
        latency: float | None = None,
        weight: Mapping[int, float] | None = None,
        total: float = 0.0,
    ) -> None:
        self.room = Room(structure.units)
        self.weight = weight or {}
        self._latency, self._time = latency, total
        self._left: dict[Layer, int] = {}
        self._shared = 0
        for layer, units in structure.layers().items():
            own = [layers[str(n.name)] for n in layer if n.name in layers]
            if own:
                self._left[layer] = share(max(own), len(units))
            elif uniform and latency is None:
                self._left[layer] = share(ratio, len(units))
            else:
                self._shared += len(units)
        self._shared = share(ratio, self._shared)
        for unit in removed:
            self.remove(unit)

    def wants(self, layer: Layer) -> bool:
        """Whether more units of this layer should go."""
        if layer in self._left:
            return self._left[layer] > 0
        if self._latency is not None:
            return self._time > self._latency
        return self._shared > 0

    def set(self, layer: Layer, count: int) -> None:
        """Ask for ``count`` more units of one layer."""
        self._left[layer] = count

    def remove(self, unit: Unit) -> None:
        """Count a unit as gone."""
        self.room.remove(unit)
        self._time -= self.weight.get(unit.number, 0.0)
        if unit.layer in self._left:
            self._left[unit.layer] -= 1
        else:
            self._shared -= 1


def unit_times(model: ir.Model, structure: Structure) -> tuple[dict[int, float], float]:
    """Milliseconds that each unit takes in tables, and those of the whole model (one core, 4 bits at every table)."""
    each = milliseconds(bootstrap_complexity(TABLE_BITS))
    tables = find_regions(model).quantized
    sizes = {v: math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int)) for v in tables}
    times = {}
    for unit in structure.units:
        elements = 0
        for value in tables:
            if value in unit.places:
                axis, indices = unit.places[value]
                elements += sizes[value] // int(str(value.shape[axis])) * len(indices)  # type: ignore[index]
        times[unit.number] = elements * each
    return times, sum(sizes.values()) * each
