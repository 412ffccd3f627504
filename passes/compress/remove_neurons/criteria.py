"""Which unit to remove next: the criteria, and the greedy choice over all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear
from .goal import Goal, Layer
from .greedy import Reader
from .moments import Moments
from .structure import Structure, Unit
from .weights import Weights

NORMS = {"l1": 1, "l2": 2}
"""Orders of the norms that rank units, by the name of the criterion."""


class Criterion(Protocol):
    """Says what the loss of units costs."""

    def costs(self, units: Sequence[Unit]) -> np.ndarray:
        """The cost of removing each unit of one layer by itself, comparable between layers."""

    def remove(self, unit: Unit) -> set[ir.Node]:
        """Take a removal in; returns the linear nodes whose units cost something else now."""


class Known:
    """Costs that something else has found.

    Args:
        costs: By the units' numbers.
    """

    def __init__(self, costs: Mapping[int, float]) -> None:
        self._costs = costs

    def costs(self, units: Sequence[Unit]) -> np.ndarray:
        """See ``Criterion``."""
        return np.array([self._costs[u.number] for u in units])

    def remove(self, unit: Unit) -> set[ir.Node]:  # noqa: ARG002
        """See ``Criterion``."""
        return set()


class Fixed(Known):
    """Costs that do not change: the norm of the weights that produce a unit, relative to the mean of its
    layer.

    Args:
        structure: All units.
        weights: The weights.
        norm: ``l1`` or ``l2``; with ``spread`` the 2-norm of the weights that multiply the unit is taken.
        spread: For each linear node the standard deviation of each of its input columns.
    """

    def __init__(
        self,
        structure: Structure,
        weights: Weights,
        norm: str,
        spread: Mapping[ir.Node, np.ndarray] | None = None,
    ) -> None:
        known: dict[int, float] = {}
        for units in structure.layers().values():
            found = np.zeros(len(units))
            for index, unit in enumerate(units):
                if spread is None:
                    rows = [weights[node][channel].reshape(-1) for node, channel in unit.births]
                    found[index] = np.linalg.norm(np.concatenate(rows), NORMS[norm])
                else:
                    found[index] = sum(
                        _outgoing(unit, structure.linears[n], weights[n], spread[n]) for n in unit.readers
                    )
            mean = float(found.mean())
            known.update({u.number: float(c) / (mean or 1.0) for u, c in zip(units, found, strict=True)})
        super().__init__(known)


class OutputError:
    """The squared error that a removal leaves in what reads the unit, after refitting, over the variance
    there.

    Args:
        structure: All units.
        weights: The weights that the readers start with.
        moments: Moments of what each reader reads and should produce.
        ridge: Damping of the fit.
    """

    def __init__(
        self, structure: Structure, weights: Weights, moments: Mapping[ir.Node, Moments], ridge: float
    ) -> None:
        self._structure = structure
        self._readers = {
            node: Reader(m, flat(weights[node]), ridge, np.full(len(m.zz), 1 / max(float(m.zz.sum()), 1e-30)))
            for node, m in moments.items()
        }
        self._known: dict[tuple[int, ir.Node], np.ndarray] = {}

    def _columns(self, unit: Unit, node: ir.Node) -> np.ndarray:
        """``columns``, which are asked for in every round."""
        key = unit.number, node
        if key not in self._known:
            self._known[key] = columns(unit, self._structure.linears[node])
        return self._known[key]

    def costs(self, units: Sequence[Unit]) -> np.ndarray:
        """See ``Criterion``."""
        total = np.zeros(len(units))
        by_size: dict[tuple[ir.Node, int], list[int]] = {}
        for index, unit in enumerate(units):
            for node, channels in unit.readers.items():
                by_size.setdefault((node, len(channels)), []).append(index)
        for (node, _), indices in by_size.items():
            blocks = np.array([self._columns(units[i], node) for i in indices])
            total[indices] += self._readers[node].costs(blocks)
        return total

    def remove(self, unit: Unit) -> set[ir.Node]:
        """See ``Criterion``; errors in what a removed unit would have been do not count any more."""
        known = self._readers.keys() & unit.readers.keys()
        for node in known:
            self._readers[node].remove(self._columns(unit, node))
        return known | self.forget(unit)

    def forget(self, unit: Unit) -> set[ir.Node]:
        """Let errors in the unit itself not count: it will go."""
        changed = {node for node, _ in unit.births if node in self._readers}
        for node, channel in unit.births:
            if node in changed:
                self._readers[node].importance[channel] = 0
        return changed


def choose(units: Sequence[Unit], criterion: Criterion, goal: Goal) -> list[Unit]:
    """Remove the cheapest of ``units`` until the goal is reached; returns them in that order."""
    removed: list[Unit] = []
    pending: dict[Layer, list[Unit]] = {}
    for unit in units:
        pending.setdefault(unit.layer, []).append(unit)
    costs: dict[Layer, np.ndarray] = {}
    while (cheapest := _cheapest(pending, costs, criterion, goal)) is not None:
        layer, index = cheapest
        unit = pending[layer][index]
        if not goal.room.allows(unit):
            del costs[layer]
            continue
        pending[layer].pop(index)
        costs[layer] = np.delete(costs[layer], index)
        goal.remove(unit)
        removed.append(unit)
        touched = criterion.remove(unit)
        for other, rest in pending.items():
            if any(touched & u.readers.keys() for u in rest):
                costs.pop(other, None)
    return removed


def _cheapest(
    pending: dict[Layer, list[Unit]], costs: dict[Layer, np.ndarray], criterion: Criterion, goal: Goal
) -> tuple[Layer, int] | None:
    """Layer and index of the unit whose removal costs least for what it saves; None where none may go.

    Args:
        pending: The units that are left, by layer; those that may not go are taken out where costs are new.
        costs: Of each of them, by layer; computed where they are missing.
        criterion: Computes them.
        goal: Says which layers are wanted, and what may go.
    """
    best: tuple[float, Layer, int] | None = None
    for layer in pending:
        if not goal.wants(layer):
            continue
        if layer not in costs:
            pending[layer] = [u for u in pending[layer] if goal.room.allows(u)]
            costs[layer] = criterion.costs(pending[layer]) / _prices(pending[layer], goal)
        if not pending[layer]:
            continue
        index = int(costs[layer].argmin())
        if best is None or costs[layer][index] < best[0]:
            best = (float(costs[layer][index]), layer, index)
    return None if best is None else best[1:]


def _prices(units: Sequence[Unit], goal: Goal) -> np.ndarray:
    """What each unit saves, where time is what counts; a unit without a table saves next to nothing."""
    if not goal.times:
        return np.ones(len(units))
    return np.array([max(goal.times.get(u.number, 0.0), 1e-9) for u in units])


def flat(weight: np.ndarray) -> np.ndarray:
    """A weight as a matrix (out, inputs that one output sees)."""
    return weight.reshape(len(weight), -1)


def columns(unit: Unit, linear: Linear) -> np.ndarray:
    """The columns of the weight matrix that multiply a unit: a kernel for each channel."""
    size = int(np.prod(linear.weight.shape[2:])) if linear.node.op_type == "Conv" else 1
    return (unit.readers[linear.node][:, None] * size + np.arange(size)).reshape(-1)


def _outgoing(unit: Unit, linear: Linear, weight: np.ndarray, spread: np.ndarray) -> float:
    block = columns(unit, linear)
    return float(np.linalg.norm(flat(weight)[:, block] * spread[block]))
