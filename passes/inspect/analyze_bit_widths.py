"""``analyze-bit-widths``: bits of every accumulator and table, and how many bootstraps each layer costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...analysis.widths.table_width import table_width
from ...ir import annotations as notes
from ...ir import dialect
from ...ir.level import Level
from ..framework.base import Context, Pass


@dataclass(frozen=True)
class AnalyzeBitWidths(Pass):
    """Annotate table lookups and their accumulators with bit widths and bootstraps."""

    name: ClassVar[str] = "analyze-bit-widths"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Annotate ``model``; returns whether an annotation is new."""
        tables = [n for n in model.graph if n.domain == dialect.DOMAIN and n.op_type == "TableLookup"]
        touched = [v for t in tables for v in (t.inputs[0], t.outputs[0]) if v is not None]
        before = [dict(v.metadata_props) for v in touched]
        for table in tables:
            width = table_width(table)
            source = table.inputs[0]
            assert source is not None
            notes.put(source, low=width.low, high=width.high, bits=width.accumulator_bits)
            notes.put(table.outputs[0], table_bits=width.table_bits, pbs=width.bootstraps)
        return before != [dict(v.metadata_props) for v in touched]
