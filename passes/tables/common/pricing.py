"""Whether a rewrite makes a model dearer, and the loop that keeps only those that do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....analysis.cost.cost import estimate
from ....ir.errors import LimitError
from ....ir.graph import is_dialect
from .moves import Moves
from .unit import tables

Rewrite = Callable[[], None]
TOLERANCE = 1e-9
"""Relative; costs are sums of floats."""


class Finder(ABC):
    """Looks for rewrites in one state of a model.

    Args:
        model: Integer level.
        moves: Which operators move elements.
    """

    def __init__(self, model: ir.Model, moves: Moves) -> None:
        self.model, self.moves = model, moves

    @abstractmethod
    def __call__(self, node: ir.Node) -> Rewrite | None:
        """The rewrite that ``node`` allows, if any. Nothing is edited before it is called."""

    def renewed(self) -> Finder:
        """Looks for rewrites in the model as it is now, after one of them."""
        return type(self)(self.model, self.moves)


@dataclass(frozen=True)
class Price:
    """What a model costs.

    Attributes:
        complexity: By the cost model.
        layers: The same by the layer that feeds a table.
        bootstraps: For one sample.
        encrypted: Encrypts; a rewrite that loses one would change what the client sends.
    """

    complexity: float
    layers: Mapping[str, float]
    bootstraps: int
    encrypted: int

    def allows(self, after: Price) -> bool:
        """Whether going to ``after`` costs nothing."""
        cheaper = after.complexity <= self.complexity * (1 + TOLERANCE)
        return cheaper and after.encrypted == self.encrypted

    def allows_each(self, after: Price) -> bool:
        """Whether going to ``after`` costs nothing at any layer: nothing dear hides behind savings."""
        known = self.layers
        return self.allows(after) and all(
            k in known and x <= known[k] * (1 + TOLERANCE) for k, x in after.layers.items()
        )


def price(model: ir.Model) -> Price:
    """The price of an integer-level model."""
    found = estimate(model)
    layers: Counter[str] = Counter()
    for layer in found.layers:
        layers[layer.name] += layer.complexity  # type: ignore[assignment]
    return Price(
        found.complexity, layers, found.bootstraps, sum(is_dialect(n, "Encrypt") for n in model.graph)
    )


def _price_or_none(model: ir.Model) -> Price | None:
    """The price; None where a maximum would have to compare what no table takes."""
    try:
        return price(model)
    except LimitError:
        return None


def improve(
    model: ir.Model,
    finder: type[Finder],
    candidates: Callable[[ir.Model], Iterable[ir.Node]] = tables,
    strictly: bool = False,
    together: bool = False,
) -> bool:
    """Apply rewrites until none is left that does not make the model dearer.

    Args:
        model: Integer level; edited in place.
        finder: Looks for rewrites; made anew for every state of the model.
        candidates: The nodes to ask, of the model as it is.
        strictly: Keep only what makes the model cheaper; for rewrites that have an inverse.
        together: Price all rewrites of a round at once, and each by itself only where that costs something
            anywhere: for rewrites that hardly ever do, in a deep network of which every layer has one.

    Returns:
        Whether any rewrite was kept.
    """
    moves = Moves(model.graph.opset_imports.get("", 21))
    find, current = finder(model, moves), None
    changed, modified = True, False
    while changed:
        if together:
            kept = _round(model, finder(model, moves), candidates)
            if kept is None:
                break
            if kept:
                modified = True
                continue
            find, current = finder(model, moves), None
        changed = False
        nodes = {n.name: n for n in model.graph}
        for name in [n.name for n in candidates(model)]:
            node = nodes.get(name)
            if node is None or (rewrite := find(node)) is None:
                continue
            current = current or price(model)
            backup = model.clone()
            rewrite()
            RemoveUnusedNodesPass()(model)
            after = _price_or_none(model)
            if (
                after is not None
                and current.allows(after)
                and (not strictly or after.complexity < current.complexity * (1 - TOLERANCE))
            ):
                current, changed, modified = after, True, True
            else:
                model.graph = backup.graph
            find, nodes = finder(model, moves), {n.name: n for n in model.graph}
    return modified


def _round(model: ir.Model, find: Finder, candidates: Callable[[ir.Model], Iterable[ir.Node]]) -> bool | None:
    """Apply what every candidate allows.

    Returns:
        Whether it costs nothing at any layer (else the model is as it was); None where there was nothing.
    """
    before: tuple[Price, ir.Model] | None = None
    nodes = {n.name: n for n in model.graph}
    for name in [n.name for n in candidates(model)]:
        node = nodes.get(name)
        if node is None or (rewrite := find(node)) is None:
            continue
        before = before or (price(model), model.clone())
        rewrite()
        RemoveUnusedNodesPass()(model)
        find, nodes = find.renewed(), {n.name: n for n in model.graph}
    if before is None:
        return None
    after = _price_or_none(model)
    if after is not None and before[0].allows_each(after):
        return True
    model.graph = before[1].graph
    return False
