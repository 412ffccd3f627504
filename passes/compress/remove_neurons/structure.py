"""What can be removed: units of coupled channels, and where each of them lies in every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear
from .adapt import Keep, adapts, size_at
from .coupling import FROZEN, Coupling, couple, input_of
from .dependence import CONSTANT


@dataclass(frozen=True)
class Unit:
    """A neuron or channel with everything that has to go with it.

    Attributes:
        number: Units are numbered in the order of the model.
        births: The linear nodes and output channels that produce it.
        places: For each tensor that holds it the axis and the indices there.
        readers: For each linear node whose weights multiply it the input channels (indices of the contracted
            axis).
    """

    number: int
    births: tuple[tuple[ir.Node, int], ...]
    places: dict[ir.Value, tuple[int, np.ndarray]]
    readers: Mapping[ir.Node, np.ndarray]

    @property
    def layer(self) -> tuple[ir.Node, ...]:
        """The linear nodes that produce it: units with the same ones belong to one layer."""
        return tuple(dict.fromkeys(node for node, _ in self.births))


@dataclass
class Structure:
    """The result of ``find_structure``.

    Attributes:
        units: All that can be removed, in order.
        linears: The linear operators of the model, in order.
        reasons: For each linear node of which some channels cannot be removed, why.
    """

    units: list[Unit]
    linears: dict[ir.Node, Linear]
    reasons: dict[str, str] = field(default_factory=dict)

    def layers(self) -> dict[tuple[ir.Node, ...], list[Unit]]:
        """Units by the linear nodes that produce them."""
        found: dict[tuple[ir.Node, ...], list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.layer, []).append(unit)
        return found

    def keep(self, removed: Iterable[Unit]) -> dict[ir.Value, Keep]:
        """What is left of every tensor that loses something."""
        gone: dict[ir.Value, tuple[int, list[np.ndarray]]] = {}
        for unit in removed:
            for value, (axis, indices) in unit.places.items():
                gone.setdefault(value, (axis, []))[1].append(indices)
        found = {}
        for value, (axis, parts) in gone.items():
            size = size_at(value, axis)
            found[value] = Keep(axis, np.setdiff1d(np.arange(size), np.concatenate(parts)), size)
        return found


class Room:
    """Counts what is left of every tensor: none may become empty."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._left: dict[ir.Value, int] = {}
        for unit in units:
            for value, (axis, _) in unit.places.items():
                self._left[value] = size_at(value, axis)

    def allows(self, unit: Unit) -> bool:
        """Whether every tensor keeps something when ``unit`` goes."""
        return all(self._left[v] > len(indices) for v, (_, indices) in unit.places.items())

    def remove(self, unit: Unit) -> None:
        """Count ``unit`` as gone."""
        for value, (_, indices) in unit.places.items():
            self._left[value] -= len(indices)


def find_structure(model: ir.Model) -> Structure:
    """Find the units of a normalized float model that can be removed, and why others cannot."""
    coupling = couple(model)
    opset = model.graph.opset_imports.get("", 21)
    while True:
        axes = _settle(coupling)
        structure = _structure(coupling, axes)
        if not _freeze_what_does_not_shrink(model, coupling, structure, opset):
            return structure


def _settle(coupling: Coupling) -> dict[ir.Value, int]:
    """Couple and freeze until removing any group of units leaves a box of every tensor; returns the axes."""
    while True:
        groups, edges = coupling.groups(), coupling.graph.number_of_edges()
        frozen = groups[FROZEN]
        lookup = np.array([CONSTANT, *(groups[u] for u in range(len(groups)))])
        axes = {}
        for value, raw in coupling.units.items():
            units = lookup[raw + 1]
            if (axis := _best_axis(units, frozen)) is not None:
                axes[value] = axis + 1
                _merge(coupling, value, units, axis)
        for node, linear in coupling.linears.items():
            x = input_of(node)
            wanted = -1 if node.op_type == "MatMul" else 1
            if x in axes and axes[x] != wanted % (coupling.units[x].ndim + 1):
                why = f"{node.name} ({linear.node.op_type}) reads {x.name} along another axis"
                coupling.freeze(lookup[coupling.units[x] + 1], why)
        if coupling.graph.number_of_edges() == edges:
            return axes


def _best_axis(units: np.ndarray, frozen: int) -> int | None:
    """The axis that lets the most units go by themselves; None where nothing can go."""
    if not ((units != CONSTANT) & (units != frozen)).any():
        return None
    pure = [len(_pure(units, axis, frozen)) for axis in range(units.ndim)]
    best = [axis for axis in range(units.ndim) if pure[axis] == max(pure)]
    return best[0] if len(best) == 1 else max(best, key=lambda axis: (_parts(units, axis), -axis))


def _parts(units: np.ndarray, axis: int) -> int:
    """How many groups are left when units that share a slice along ``axis`` go together."""
    graph = nx.Graph()
    for part in np.moveaxis(units, axis, 0):
        inside = np.unique(part)
        nx.add_path(graph, inside[inside != CONSTANT].tolist())
    return int(nx.number_connected_components(graph))


def _pure(units: np.ndarray, axis: int, frozen: int) -> set[int]:
    """Units that fill whole slices along ``axis``."""
    good: set[int] = set()
    bad = {frozen, CONSTANT}
    for part in np.moveaxis(units, axis, 0):
        inside = set(np.unique(part).tolist()) - {CONSTANT}
        (bad if len(inside) > 1 else good).update(inside)
    return good - bad


def _merge(coupling: Coupling, value: ir.Value, units: np.ndarray, axis: int) -> None:
    """Couple the units that lie in one slice."""
    for part in np.moveaxis(units, axis, 0):
        inside = np.unique(part)
        coupling.couple_all(inside, f"its part of {value.name} holds what stays")


def _structure(coupling: Coupling, axes: Mapping[ir.Value, int]) -> Structure:
    groups = coupling.groups()
    frozen = groups[FROZEN]
    lookup = np.array([CONSTANT, *(groups[u] for u in range(len(groups)))])
    births: dict[int, list[tuple[ir.Node, int]]] = {}
    reasons: dict[str, str] = {}
    for unit, (node, channel) in coupling.births.items():
        if groups[unit] != frozen:
            births.setdefault(groups[unit], []).append((node, channel))
        elif str(node.name) not in reasons:
            reasons[str(node.name)] = coupling.reason(unit)
    places: dict[int, dict[ir.Value, tuple[int, np.ndarray]]] = {g: {} for g in births}
    for value, axis in axes.items():
        slices = np.moveaxis(lookup[coupling.units[value] + 1], axis - 1, 0)
        # A slice holds one unit and perhaps constants, which are below every unit.
        owner = slices.reshape(len(slices), -1).max(axis=1)
        for group in np.unique(owner):
            if group in places:
                places[int(group)][value] = (axis, np.flatnonzero(owner == group))
    units: list[Unit] = []
    for group, born in births.items():
        readers = {
            node: places[group][x][1]
            for node, linear in coupling.linears.items()
            if (x := input_of(node)) in places[group] and linear.groups == 1
        }
        units.append(Unit(group, tuple(born), places[group], readers))
    return Structure(units, coupling.linears, reasons)


def _freeze_what_does_not_shrink(
    model: ir.Model, coupling: Coupling, structure: Structure, opset: int
) -> bool:
    """Try every operator on a part of its units and freeze those of the ones that cannot follow."""
    frozen = False
    for node in model.graph:
        if node in structure.linears:
            continue
        values = {v for v in (*node.inputs, *node.outputs) if v is not None}
        touching = [u for u in structure.units if values & u.places.keys()]
        room, tried = Room(touching), []
        for unit in touching[::2]:
            if room.allows(unit):
                room.remove(unit)
                tried.append(unit)
        if tried and not adapts(node, structure.keep(tried), opset):
            why = f"{node.name} ({node.op_type}) cannot be made smaller"
            coupling.freeze([u.number for u in touching], why)
            frozen = True
    return frozen
