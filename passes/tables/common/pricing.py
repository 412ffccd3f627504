"""What an integer model costs, and the rewrites of tables that are kept where they cost nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx_ir as ir
from typing_extensions import Self

from ....analysis.cost.cost import estimate
from ....analysis.ranges.ranges import SoundRanges
from ....ir.integer_editing import IntegerEditor
from ....ir.ops import Encrypt, TableLookup
from ....ir.verify_integer import require_exact
from ...framework.rewriting import Match, Rewrite, apply_where_cheaper
from .moves import Moves

COST_TOLERANCE = 1e-9
"""Relative difference of two costs that counts as none; costs are sums of floats."""


class Circuit:
    """An integer model as rewrites of tables look at it; what they learn of it they share.

    Args:
        model: Integer level.
        moves: Which operators move elements; it is true of every state of the model.
    """

    def __init__(self, model: ir.Model, moves: Moves) -> None:
        self.model, self.moves = model, moves

    @cached_property
    def sound(self) -> SoundRanges:
        """What every value provably stays in."""
        return SoundRanges(self.model)

    def editor(self) -> IntegerEditor:
        """A new editor: names that earlier rewrites gave up are free."""
        return IntegerEditor(self.model)


class TableRewrite(Rewrite[Match]):
    """A rewrite of an integer model.

    Args:
        circuit: The model as it is; after any change to it another rewrite is made.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit

    def renewed(self) -> Self:
        """The rewrite for the model as it is now."""
        return type(self)(Circuit(self.circuit.model, self.circuit.moves))


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
        cheaper = after.complexity <= self.complexity * (1 + COST_TOLERANCE)
        return cheaper and after.encrypted == self.encrypted

    def exceeds(self, after: Price) -> bool:
        """Whether ``after`` is cheaper, by more than sums of floats may differ."""
        return after.complexity < self.complexity * (1 - COST_TOLERANCE)

    def allows_each(self, after: Price) -> bool:
        """Whether going to ``after`` costs nothing at any layer: no cost hides behind savings."""
        known = self.layers
        return self.allows(after) and all(
            k in known and x <= known[k] * (1 + COST_TOLERANCE) for k, x in after.layers.items()
        )


def price(model: ir.Model) -> Price:
    """The price of an integer-level model.

    Raises:
        LimitError: It cannot be computed: float32 would not be exact.
    """
    require_exact(model)
    found = estimate(model)
    layers: Counter[str] = Counter()
    for layer in found.layers:
        layers[layer.name] += layer.complexity  # type: ignore[assignment]
    return Price(found.complexity, layers, found.bootstraps, len(Encrypt.all_in(model)))


def tables(model: ir.Model) -> list[ir.Node]:
    """The TableLookups of a model, in order."""
    return [t.node for t in TableLookup.all_in(model)]


def improve(
    model: ir.Model,
    rewrites: Sequence[type[TableRewrite[Any]]],
    candidates: Callable[[ir.Model], Iterable[ir.Node]] = tables,
    strictly: bool = False,
    together: bool = False,
) -> bool:
    """Apply rewrites until none is left that does not make the model more expensive.

    Args:
        model: Integer level; edited in place.
        rewrites: At each node the first one that is possible is tried.
        candidates, strictly, together: As for ``apply_where_cheaper``.

    Returns:
        Whether any rewrite was kept.
    """
    moves = Moves(model.graph.opset_imports.get("", 21))

    def make() -> list[TableRewrite[Any]]:
        circuit = Circuit(model, moves)
        return [rewrite(circuit) for rewrite in rewrites]

    return apply_where_cheaper(model, make, price, candidates, strictly, together)
