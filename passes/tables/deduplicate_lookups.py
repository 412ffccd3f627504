"""``deduplicate-lookups``: a table is applied to each different value once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level
from ..framework.base import Context, Pass
from .common import moving, neurons, pricing, shrink, unit


@dataclass(frozen=True)
class DeduplicateLookups(Pass):
    """Apply tables before values are repeated, and compute equal neurons once.

    A table behind operators that repeat elements (Expand, Tile, Gather, Resize, Concat of one tensor) moves
    in front of them. Neurons with equal weights, constants and tables become one, whose outgoing weights are
    the sum of theirs; they stay apart where the larger weights would make bootstraps dearer than the lookups
    that are saved.
    """

    name: ClassVar[str] = "deduplicate-lookups"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Remove repeated lookups of ``model`` in place."""
        return pricing.improve(model, _Duplicates)


class _Duplicates(pricing.Finder):
    def __call__(self, node: ir.Node) -> pricing.Rewrite | None:
        found = unit.read(node)
        if found is None:
            return None
        if (step := moving.before(found, self.moves)) is not None:
            return lambda: moving.apply_before(found, step, IntegerEditor(self.model))
        site = neurons.find(node, self.moves)
        return self._equal_neurons(site) if site is not None else None

    def _equal_neurons(self, site: neurons.Site) -> pricing.Rewrite | None:
        stands_for = _equal(site)
        gone = stands_for != np.arange(len(stands_for))
        if not gone.any():
            return None
        planned = shrink.plan(site, gone, stands_for, np.zeros(site.channel.shape))
        if planned is None:
            return None
        return lambda: shrink.apply(planned, IntegerEditor(self.model), self.moves)


def _equal(site: neurons.Site) -> np.ndarray:
    """(neurons): the first neuron that computes the same, by weights, constants on the way and tables."""
    used = site.unit
    # An offset in front of a table is the same as a table that begins elsewhere.
    begins = used.first[used.rows] - site.way.offset
    facts = [begins, site.way.slope, _kinds(used.values)[used.rows]]
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
