"""``remove-identity-tables``: a table that only multiplies and adds needs no bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...ir.graph import is_dialect, variable_inputs
from ...ir.level import Level
from ...ir.ops import RoundBits
from ..framework.base import Context, Pass
from ..framework.rewriting import Refusal
from .common import compose, pricing
from .common.absorb import Absorption
from .common.moves import Moves
from .common.reach import entries, residue
from .common.shaped_lookup import ShapedLookup


@dataclass(frozen=True)
class RemoveIdentityTables(Pass):
    """Remove tables that compute ``a * x + b`` with whole a and b on all that can reach them.

    The factor goes into the next weights and the addend behind them (computed by running the operator, so
    that padding stays right), or both stay as operators, which cost nothing. Two linear operators that meet
    by this become one; where they cannot the table stays, for Concrete counts too little noise there. So it
    does where wider accumulators or larger weights would make other tables cost more. Behind a RoundBits no
    table goes: rounding itself needs the bootstrap.
    """

    name: ClassVar[str] = "remove-identity-tables"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Remove affine tables of ``model`` in place."""
        return pricing.improve(model, [RemoveAffine])


@dataclass(frozen=True)
class Affine:
    """A table that multiplies and adds.

    Attributes:
        table: The table.
        slope, offset: (channels), whole.
        meeting: Linear operators behind it, which would read a linear one's result.
    """

    table: ShapedLookup
    slope: np.ndarray
    offset: np.ndarray
    meeting: list[ir.Node]


class RemoveAffine(pricing.TableRewrite[Affine]):
    """A table that computes ``a * x + b`` goes; the next weights take a and b in."""

    name: ClassVar[str] = "remove-affine"

    def match(self, node: ir.Node) -> Affine | Refusal | None:
        """The table with its slopes and offsets."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        if found.rounding is not None:
            return Refusal("rounding itself needs the bootstrap")
        lines = _lines(found, *entries(found, self.circuit.sound))
        if lines is None:
            return Refusal("the table is no line with whole slope and offset")
        if not _on_grid(found):
            return Refusal("inputs may fall between two entries")
        meeting = _meeting(found.source, found.output, self.circuit.moves)
        if meeting is None:
            return Refusal("two linear operators would meet that do not compose")
        return Affine(found, *lines, meeting)

    def apply(self, match: Affine) -> None:
        """Let what follows take the line in, and compose linear operators that meet."""
        edit, moves, found = self.circuit.editor(), self.circuit.moves, match.table
        rows = found.rows
        Absorption(edit, moves).absorb(found.output, match.slope[rows], match.offset[rows])
        ir.convenience.replace_all_uses_with(found.output, found.source)
        for second in match.meeting:
            compose.compose_behind(second, edit, moves)


def _lines(found: ShapedLookup, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Whole slope and offset of every table on these entries; None where one is no line, or all are flat."""
    slopes, offsets = np.zeros(len(found.entries)), np.zeros(len(found.entries))
    for row, (low, high) in enumerate(zip(first, last, strict=True)):
        if last[row] < 0:
            continue
        y = found.entries[row, low : high + 1].astype(np.float64)
        x = found.entry_inputs[row, low : high + 1].astype(np.float64)
        slopes[row] = (y[-1] - y[0]) / (x[-1] - x[0]) if len(x) > 1 else 0.0
        offsets[row] = y[0] - slopes[row] * x[0]
        if slopes[row] != np.rint(slopes[row]) or not np.array_equal(slopes[row] * x + offsets[row], y):
            return None
    return (slopes, offsets) if slopes.any() else None


def _on_grid(found: ShapedLookup) -> bool:
    """Whether inputs never fall between two entries."""
    left = residue(found.source, found.step)
    return left is not None and not ((found.first - left) % found.step).any()


def _meeting(source: ir.Value, output: ir.Value, moves: Moves) -> list[ir.Node] | None:
    """Linear operators that would read a linear one's result; None where they do not compose with it."""
    behind = _mixed(source)
    readers = _linear_readers(output, moves)
    if not behind:
        return []
    if all(compose.fits(source, output, reader, moves) for reader in readers):
        return readers
    return None


def _mixed(value: ir.Value) -> bool:
    """Whether elements of ``value`` share noise: a linear operator made them of the same bootstraps."""
    pending, seen = [value], set()
    while pending:
        node = pending.pop().producer()
        if node is None or node in seen or (is_dialect(node) and not RoundBits.match(node)):
            continue
        seen.add(node)
        if linear_of(node) is not None or node.op_type == "ReduceSum":
            return True
        pending.extend(variable_inputs(node))
    return False


def _linear_readers(value: ir.Value, moves: Moves) -> list[ir.Node]:
    found: list[ir.Node] = []
    for reader in dict.fromkeys(value.consumers()):
        if linear_of(reader) is not None or reader.op_type == "ReduceSum":
            found.append(reader)
        elif reader.domain == "":
            found.extend(_linear_readers(reader.outputs[0], moves))
    return found
