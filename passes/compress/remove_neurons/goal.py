"""How much has to go: a share of all units, shares of single layers, or as much as a latency asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ....analysis.cost.bootstrap import bootstrap_of
from ....analysis.cost.timing import Timings, default_timings
from ....analysis.regions.region_analysis import find_regions
from .adapt import size_at
from .structure import Room, Structure, Unit

Layer = tuple[ir.Node, ...]
PRESUMED_TABLE_BITS = 4
"""Bits that reach each table, where a latency is asked for before the widths are known."""


def names_of(layer: Layer) -> tuple[str, ...]:
    """The names of the nodes of a layer."""
    return tuple(str(node.name) for node in layer)


def share(ratio: float, count: int) -> int:
    """``ratio`` of ``count`` units, halves rounded up."""
    return math.floor(ratio * count + 0.5)


@dataclass(frozen=True)
class RemovalTarget:
    """What the user asked for.

    Attributes:
        ratio: Share of all units.
        uniform: Whether every layer loses that share, not only all layers together.
        layers: The share for single layers, by the name of a linear node that produces them.
        latency: Milliseconds for one sample; then ``ratio`` does not count.
        priced: Whether those go first that take most time for what they are worth, not those worth least.
        counts: How many units each layer had at first, by the names of its nodes: what went before counts.
    """

    ratio: float = 0.0
    uniform: bool = True
    layers: Mapping[str, float] = field(default_factory=dict)
    latency: float | None = None
    priced: bool = False
    counts: Mapping[tuple[str, ...], int] = field(default_factory=dict)


class Goal:
    """What is still to go, and whether a unit may.

    Args:
        structure: All units.
        target: What was asked for.
        times: For each unit the milliseconds that it takes, where a latency was asked for.
        total: Milliseconds of the whole model.
    """

    def __init__(
        self,
        structure: Structure,
        target: RemovalTarget,
        times: Mapping[int, float] | None = None,
        total: float = 0.0,
    ) -> None:
        self.room = Room(structure.units)
        self.times = times or {}
        self._latency, self._time = target.latency, total
        self._left: dict[Layer, int] = {}
        first, now = 0, 0
        for layer, units in structure.layers().items():
            names = names_of(layer)
            count = target.counts.get(names, len(units))
            own = [target.layers[name] for name in names if name in target.layers]
            if own or (target.uniform and target.latency is None):
                gone = max(0, count - len(units))
                self._left[layer] = share(max(own) if own else target.ratio, count) - gone
            else:
                first, now = first + count, now + len(units)
        self._shared = share(target.ratio, first) - max(0, first - now)

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
        self._time -= self.times.get(unit.number, 0.0)
        if unit.layer in self._left:
            self._left[unit.layer] -= 1
        else:
            self._shared -= 1

    def give_back(self, removed: list[Unit]) -> list[Unit]:
        """Units that need not go after all: the last ones may have saved more than was asked for."""
        back: list[Unit] = []
        if self._latency is None:
            return back
        for unit in reversed(removed):
            time = self.times.get(unit.number, 0.0)
            if unit.layer not in self._left and self._time + time <= self._latency:
                self._time += time
                back.append(unit)
        return back


def unit_times(
    model: ir.Model,
    structure: Structure,
    timings: Timings | None = None,
    tables: Sequence[ir.Value] | None = None,
) -> tuple[dict[int, float], float]:
    """Milliseconds of each unit's tables and of the whole model (one core, ``PRESUMED_TABLE_BITS``).

    Args:
        model, structure: The model and its units.
        timings: Timings of the machine; by default those that came with onnx-fhe.
        tables: What tables will read; found out where it is not given, for float models.
    """
    chosen = bootstrap_of(PRESUMED_TABLE_BITS)
    known = timings or default_timings()
    each = known.milliseconds(chosen.parameters, chosen.keyswitch)
    if tables is None:
        tables = list(find_regions(model).quantized)
    sizes = {v: math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int)) for v in tables}
    times = {}
    for unit in structure.units:
        elements = 0
        for value in tables:
            if value in unit.places:
                axis, indices = unit.places[value]
                elements += sizes[value] // size_at(value, axis) * len(indices)
        times[unit.number] = elements * each
    return times, sum(sizes.values()) * each + 1e3 * known.call_seconds
