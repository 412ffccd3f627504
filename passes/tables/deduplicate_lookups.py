"""``deduplicate-lookups``: a table is applied to each different value once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...ir.level import Level
from ..framework.base import Context, Pass
from ..framework.rewriting import Refusal
from .common import moving, neurons, pricing, shrink
from .common.shaped_lookup import ShapedLookup


@dataclass(frozen=True)
class DeduplicateLookups(Pass):
    """Apply tables before values are repeated, and compute equal neurons once.

    A table behind operators that repeat elements (Expand, Tile, Gather, Resize, Concat of one tensor) moves
    in front of them. Neurons with equal weights, constants and tables become one, and their outgoing weights
    are added up; they stay apart where the larger weights would make bootstraps cost more than the lookups
    that are saved.
    """

    name: ClassVar[str] = "deduplicate-lookups"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Remove repeated lookups of ``model`` in place."""
        return pricing.improve(model, [MoveBeforeRepetition, MergeEqualNeurons])


class MoveBeforeRepetition(pricing.TableRewrite[tuple[ShapedLookup, moving.Place]]):
    """A table goes in front of operators that repeat elements."""

    name: ClassVar[str] = "move-before-repetition"

    def match(self, node: ir.Node) -> tuple[ShapedLookup, moving.Place] | Refusal | None:
        """The table and the place where it is applied least."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        step = moving.before(found, self.circuit.moves)
        return (found, step) if step is not None else Refusal("no place before the table takes fewer lookups")

    def apply(self, match: tuple[ShapedLookup, moving.Place]) -> None:
        """Move the table there."""
        moving.apply_before(*match, self.circuit.editor())


class MergeEqualNeurons(pricing.TableRewrite[shrink.Plan]):
    """Neurons that compute the same become one."""

    name: ClassVar[str] = "merge-equal-neurons"

    def match(self, node: ir.Node) -> shrink.Plan | Refusal | None:
        """Which neurons go, and which stand for them."""
        if ShapedLookup.match(node) is None:
            return None
        site = neurons.find(node, self.circuit.moves)
        if site is None:
            return Refusal("not only linear operators, layout and constants stand around it")
        stands_for = _equal(site)
        gone = stands_for != np.arange(len(stands_for))
        if not gone.any():
            return Refusal("no two neurons are equal")
        planned = shrink.plan(site, gone, stands_for, np.zeros(site.channel.shape))
        return planned or Refusal("a tensor would not stay rectangular")

    def apply(self, match: shrink.Plan) -> None:
        """Take the neurons out."""
        shrink.apply(match, self.circuit.editor(), self.circuit.moves)


def _equal(site: neurons.Site) -> np.ndarray:
    """(neurons): the first neuron that computes the same, by weights, constants on the way and tables."""
    used = site.table
    # An offset in front of a table is the same as a table that begins elsewhere.
    begins = used.first[used.rows] - site.way.offset
    facts = [begins, site.way.slope, _kinds(used.entries)[used.rows]]
    columns = [site.linear.matrix(), *(site.per_neuron(np.asarray(f, np.float64)) for f in facts)]
    for reader in site.readers:
        for fact in (reader.way.slope, reader.way.offset):
            at_table = np.empty(fact.size)
            at_table[reader.way.source.ravel()] = fact.ravel()
            columns.append(site.per_neuron(at_table.reshape(site.channel.shape)))
    _, first, inverse = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])


def _kinds(rows: np.ndarray) -> np.ndarray:
    """(rows): a number for each different row; rows of a million entries take too long to sort."""
    seen: dict[bytes, int] = {}
    # Zero has two signs.
    digests = (hashlib.sha256(np.ascontiguousarray(row + 0.0).data).digest() for row in rows)
    return np.array([seen.setdefault(digest, len(seen)) for digest in digests], np.int64)
