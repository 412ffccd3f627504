"""The form of a rewrite, ``match`` and ``apply``, and the two ways to drive rewrites: greedy and priced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from typing_extensions import Self

from ...ir.errors import LimitError

Match = TypeVar("Match")


@dataclass(frozen=True)
class Refusal:
    """Why a rewrite leaves a node alone that is of its kind.

    Attributes:
        reason: A sentence for developers; tests assert it.
    """

    reason: str


class Rewrite(ABC, Generic[Match]):
    """A change of a graph around one node: ``match`` decides and edits nothing, ``apply`` edits."""

    name: ClassVar[str]
    """In words with dashes, as passes are named."""

    @abstractmethod
    def match(self, node: ir.Node) -> Match | Refusal | None:
        """What ``apply`` needs to know.

        Returns:
            That; or a ``Refusal`` where ``node`` is of the kind but something forbids the change; or None
            where this rewrite is not about such nodes.
        """

    @abstractmethod
    def apply(self, match: Match) -> None:
        """Make the change that ``match`` found possible."""

    def renewed(self) -> Self:
        """The rewrite for the model as it is after a change; it forgets what it knew of the model."""
        return self


class Price(Protocol):
    """What a model costs, as ``apply_where_cheaper`` compares it."""

    def allows(self, after: Any) -> bool:
        """Whether going to ``after`` costs nothing."""

    def allows_each(self, after: Any) -> bool:
        """Whether going to ``after`` costs nothing in any part of the model."""

    def exceeds(self, after: Any) -> bool:
        """Whether ``after`` is cheaper."""


def refusals(nodes: Iterable[ir.Node], rewrites: Sequence[Rewrite[Any]]) -> list[tuple[str, str, str]]:
    """Name of the node, name of the rewrite and reason, for all that is refused."""
    return [
        (str(node.name), rewrite.name, found.reason)
        for node in nodes
        for rewrite in rewrites
        if isinstance(found := rewrite.match(node), Refusal)
    ]


def first_match(
    node: ir.Node, rewrites: Sequence[Rewrite[Any]]
) -> tuple[Rewrite[Any], Any] | tuple[None, None]:
    """The first of the rewrites that is possible at ``node``, with its match."""
    for rewrite in rewrites:
        found = rewrite.match(node)
        if found is not None and not isinstance(found, Refusal):
            return rewrite, found
    return None, None


def apply_greedily(nodes: Iterable[ir.Node], rewrites: Sequence[Rewrite[Any]]) -> bool:
    """One sweep: apply every rewrite that is possible, node by node.

    A rewrite may remove its node or put another in its place; that one's turn is the next sweep.

    Args:
        nodes: The nodes as they are before the sweep.
        rewrites: Tried on each node in this order.

    Returns:
        Whether any was applied.
    """
    modified = False
    for node in nodes:
        for rewrite in rewrites:
            if node.graph is None:
                break
            found = rewrite.match(node)
            if found is not None and not isinstance(found, Refusal):
                rewrite.apply(found)
                modified = True
    return modified


def apply_where_cheaper(
    model: ir.Model,
    make: Callable[[], Sequence[Rewrite[Any]]],
    price: Callable[[ir.Model], Price],
    candidates: Callable[[ir.Model], Iterable[ir.Node]],
    strictly: bool = False,
    together: bool = False,
) -> bool:
    """Apply rewrites until none is left that does not make the model more expensive.

    At each node the first rewrite that is possible is tried; where its price forbids it, it is taken back.

    Args:
        model: Edited in place.
        make: Makes the rewrites for the model as it is.
        price: What the model costs; it raises ``LimitError`` for a model that cannot be computed.
        candidates: The nodes to ask, of the model as it is.
        strictly: Keep only what makes the model cheaper; for rewrites that have an inverse.
        together: Price all rewrites of a round at once, and each by itself only where that costs something
            anywhere: for rewrites that hardly ever do, in a deep network of which every layer has one.

    Returns:
        Whether any rewrite was kept.
    """
    rewrites, current = make(), None
    changed, modified = True, False
    while changed:
        if together:
            kept = _round(model, make(), price, candidates)
            if kept is None:
                break
            if kept:
                modified = True
                continue
            rewrites, current = make(), None
        changed = False
        nodes = {n.name: n for n in model.graph}
        for name in [n.name for n in candidates(model)]:
            node = nodes.get(name)
            rewrite, found = first_match(node, rewrites) if node is not None else (None, None)
            if rewrite is None:
                continue
            current = current or price(model)
            backup = model.clone()
            rewrite.apply(found)
            RemoveUnusedNodesPass()(model)
            after = _price_or_none(model, price)
            if after is not None and current.allows(after) and (not strictly or current.exceeds(after)):
                current, changed, modified = after, True, True
            else:
                model.graph = backup.graph
            rewrites, nodes = make(), {n.name: n for n in model.graph}
    return modified


def _price_or_none(model: ir.Model, price: Callable[[ir.Model], Price]) -> Price | None:
    try:
        return price(model)
    except LimitError:
        return None


def _round(
    model: ir.Model,
    rewrites: Sequence[Rewrite[Any]],
    price: Callable[[ir.Model], Price],
    candidates: Callable[[ir.Model], Iterable[ir.Node]],
) -> bool | None:
    """Apply what every candidate allows.

    Returns:
        Whether it costs nothing in any part (else the model is as it was); None where there was nothing.
    """
    before: tuple[Price, ir.Model] | None = None
    nodes = {n.name: n for n in model.graph}
    for name in [n.name for n in candidates(model)]:
        node = nodes.get(name)
        rewrite, found = first_match(node, rewrites) if node is not None else (None, None)
        if rewrite is None:
            continue
        before = before or (price(model), model.clone())
        rewrite.apply(found)
        RemoveUnusedNodesPass()(model)
        rewrites, nodes = [r.renewed() for r in rewrites], {n.name: n for n in model.graph}
    if before is None:
        return None
    after = _price_or_none(model, price)
    if after is not None and before[0].allows_each(after):
        return True
    model.graph = before[1].graph
    return False
