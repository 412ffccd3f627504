"""``move-tables``: a table stands where it is applied to the fewest elements, or on the fewest bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...ir.level import Level
from ..framework.base import Context, Pass
from ..framework.rewriting import Refusal
from .common import moving, pooling, pricing
from .common.reach import entries
from .common.shaped_lookup import ShapedLookup


@dataclass(frozen=True)
class MoveTables(Pass):
    """Move tables behind operators that drop elements, and to the cheaper side of max-pooling.

    Behind Slice, Gather and the like a table is applied to what is left only. A table that never falls
    commutes with
    MaxPool: behind it there are fewer elements, in front of it the pooling itself, which takes bootstraps
        too, works
    on fewer bits; the estimated cost decides. Affine tables, which commute with sums, need no place at all:
    see remove-identity-tables.
    """

    name: ClassVar[str] = "move-tables"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Move tables of ``model`` in place."""
        return pricing.improve(model, [MoveBehindSelection, PassPooling], strictly=True)


Places = tuple[ShapedLookup, list[moving.Place]]
"""A table, and a place for each of its readers."""


class MoveBehindSelection(pricing.TableRewrite[Places]):
    """A table goes behind operators that drop elements."""

    name: ClassVar[str] = "move-behind-selection"

    def match(self, node: ir.Node) -> Places | Refusal | None:
        """The table and the places where it is applied least."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        places = moving.after(found, self.circuit.moves)
        return (found, places) if places is not None else Refusal("all elements of the table are read")

    def apply(self, match: Places) -> None:
        """Put a table at each place."""
        moving.apply_after(*match, self.circuit.editor())


@dataclass(frozen=True)
class Pooled:
    """A table next to max-pooling.

    Attributes:
        table: The table.
        pool: The pooling.
        behind: Whether the pooling reads the table; else the table reads the pooling.
    """

    table: ShapedLookup
    pool: ir.Node
    behind: bool


class PassPooling(pricing.TableRewrite[Pooled]):
    """A table that never falls goes to the other side of max-pooling."""

    name: ClassVar[str] = "pass-pooling"

    def match(self, node: ir.Node) -> Pooled | Refusal | None:
        """The table and the pooling next to it."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        if not pooling.never_falls(found, *entries(found, self.circuit.sound)):
            return Refusal("the table falls somewhere")
        if (later := pooling.behind(found)) is not None:
            return Pooled(found, later, behind=True)
        if (earlier := pooling.in_front(found)) is not None:
            return Pooled(found, earlier, behind=False)
        return Refusal("no max-pooling stands next to the table, alone and with tables by channel")

    def apply(self, match: Pooled) -> None:
        """Exchange the two."""
        swap = pooling.swap_behind if match.behind else pooling.swap_in_front
        swap(match.table, match.pool, self.circuit.editor())
