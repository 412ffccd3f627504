"""``merge-tables``: a table that reads another table's output becomes one table with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...ir.level import Level
from ...ir.ops import TableLookup
from ..framework.base import Context, Pass
from ..framework.rewriting import Refusal
from ..lower.tables import MAX_TENSOR_ENTRIES
from .common import chain, moving, pricing
from .common.shaped_lookup import ShapedLookup, express, look_up, rewrite


@dataclass(frozen=True)
class MergeTables(Pass):
    """Merge a table with the one it reads, also through layout operators and constants added or multiplied
    between.

    The merged table takes the first one's input, and its declared range; its entries are computed by running
    the two in onnxruntime. It stands behind the operators that moved elements. A first table that others read
    too stays for them; the merge is left undone where that costs more.
    """

    name: ClassVar[str] = "merge-tables"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Merge tables of ``model`` in place."""
        return pricing.improve(model, [Merge])


@dataclass(frozen=True)
class Pair:
    """Two tables that become one.

    Attributes:
        first: The one that is read.
        second: The TableLookup that reads it.
        moved: Operators between that move elements.
        values: (channels, size) of the merged table.
        starts: (channels): the first input of each of its tables.
        axis: The axis of its channels.
    """

    first: ShapedLookup
    second: ShapedLookup
    moved: tuple[ir.Node, ...]
    values: np.ndarray
    starts: np.ndarray
    axis: int


class Merge(pricing.TableRewrite[Pair]):
    """A table takes in the one that it reads."""

    name: ClassVar[str] = "merge"

    def match(self, node: ir.Node) -> Pair | Refusal | None:
        """The two tables, and the one that they make."""
        moves = self.circuit.moves
        second = ShapedLookup.match(node)
        if second is None:
            return None
        between = chain.back(second.source, lambda n: TableLookup.match(n) is not None, moves)
        first = ShapedLookup.producing(between.start) if between is not None else None
        if between is None or first is None:
            return Refusal("it reads no table through layout and constants alone")
        merged = _compose(first, between, second, moves.opset)
        if merged is None:
            return Refusal("no one axis tells the merged tables apart, or they would be too large")
        moved = tuple(n for n in between.nodes if moves(n.outputs[0]) is not None)
        return Pair(first, second, moved, *merged)

    def apply(self, match: Pair) -> None:
        """Let the second table read what the first one read, behind the operators that move elements."""
        edit, second, first = self.circuit.editor(), match.second, match.first
        edit.at(second.node)
        current = moving.repeat(match.moved, first.source, edit)
        # A rounding that stands where the merged table reads can serve it too.
        if first.rounding is not None and not match.moved:
            current = first.rounding.output
        else:
            current = first.rounded_again(current, edit, f"{second.name}_rounding")
        second.node.replace_input_with(0, current)
        rewrite(edit, second, match.values, match.starts, first.step, match.axis)


def _compose(
    first: ShapedLookup, between: chain.Chain, second: ShapedLookup, opset: int
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Tables, first inputs and axis of both lookups together; None where no one axis tells tables apart."""
    elements = np.stack(
        [
            first.rows.ravel()[between.source].ravel(),
            between.slope.ravel(),
            between.offset.ravel(),
            second.rows.ravel(),
        ]
    )
    kinds, inverse = np.unique(elements, axis=1, return_inverse=True)
    if kinds.shape[1] * first.size > MAX_TENSOR_ENTRIES:
        return None
    before, slope, offset, after = kinds
    arriving = first.entries[before.astype(int)] * slope[:, None] + offset[:, None]
    values = look_up(second, after.astype(int), arriving, opset)
    starts = first.first[before.astype(int)]
    # Different pairs of tables may make the same one.
    _, same, equal = np.unique(
        np.column_stack([starts, values]), axis=0, return_index=True, return_inverse=True
    )
    if (found := express(equal.ravel()[inverse.ravel()].reshape(between.source.shape))) is None:
        return None
    axis, chosen = found
    return values[same[chosen]], starts[same[chosen]], axis
