"""Whether a rewrite makes a model dearer, and the loop that keeps only those that do not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.errors import LimitError
from ...ir.graph import is_dialect
from ..analysis.cost import estimate
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


@dataclass(frozen=True)
class Price:
    """What a model costs.

    Attributes:
        complexity: By the cost model.
        bootstraps: For one sample.
        encrypted: Encrypts; a rewrite that loses one would change what the client sends.
    """

    complexity: float
    bootstraps: int
    encrypted: int

    def allows(self, after: Price) -> bool:
        """Whether going to ``after`` costs nothing."""
        cheaper = after.complexity <= self.complexity * (1 + TOLERANCE)
        return cheaper and after.encrypted == self.encrypted


def price(model: ir.Model) -> Price:
    """The price of an integer-level model."""
    found = estimate(model)
    return Price(found.complexity, found.bootstraps, sum(is_dialect(n, "Encrypt") for n in model.graph))


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
) -> bool:
    """Apply rewrites until none is left that does not make the model dearer.

    Args:
        model: Integer level; edited in place.
        finder: Looks for rewrites; made anew for every state of the model.
        candidates: The nodes to ask, of the model as it is.
        strictly: Keep only what makes the model cheaper; for rewrites that have an inverse.

    Returns:
        Whether any rewrite was kept.
    """
    moves = Moves(model.graph.opset_imports.get("", 21))
    find, current = finder(model, moves), None
    changed, modified = True, False
    while changed:
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
