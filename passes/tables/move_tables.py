"""``move-tables``: a table stands where it is applied to the fewest elements, or on the fewest bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...analysis.ranges.ranges import SoundRanges
from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level
from ..framework.base import Context, Pass
from .common import moving, pooling, pricing, unit
from .common.moves import Moves
from .common.reach import entries


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
        return pricing.improve(model, _Places, _candidates, strictly=True)


def _candidates(model: ir.Model) -> Iterable[ir.Node]:
    return unit.tables(model)


class _Places(pricing.Finder):
    def __init__(self, model: ir.Model, moves: Moves) -> None:
        super().__init__(model, moves)
        self.sound = SoundRanges(model)

    def __call__(self, node: ir.Node) -> pricing.Rewrite | None:
        found = unit.read(node)
        if found is None:
            return None
        if (places := moving.after(found, self.moves)) is not None:
            return lambda: moving.apply_after(found, places, IntegerEditor(self.model))
        rising = pooling.never_falls(found, *entries(found, self.sound))
        if not rising:
            return None
        if (later := pooling.behind(found)) is not None:
            return lambda: pooling.swap_behind(found, later, IntegerEditor(self.model))
        if (earlier := pooling.in_front(found)) is not None:
            return lambda: pooling.swap_in_front(found, earlier, IntegerEditor(self.model))
        return None
