"""``analyze-bit-widths``: bits of every accumulator and table, and how many bootstraps each layer costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...ir import annotations as notes
from ...ir.level import Level
from ...ir.ops import TableLookup
from ..framework.base import Context, Pass


@dataclass(frozen=True)
class AnalyzeBitWidths(Pass):
    """Annotate table lookups and their accumulators with bit widths and bootstraps."""

    name: ClassVar[str] = "analyze-bit-widths"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Annotate ``model``; returns whether an annotation is new."""
        tables = TableLookup.all_in(model)
        touched = [v for t in tables for v in (t.input, t.output)]
        before = [dict(v.metadata_props) for v in touched]
        for table in tables:
            low, high = table.range
            notes.put(table.input, low=low, high=high, bits=table.accumulator_bits)
            notes.put(table.output, table_bits=table.table_bits, pbs=table.bootstraps)
        return before != [dict(v.metadata_props) for v in touched]
