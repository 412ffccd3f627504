"""``estimate-cost``: bootstraps, complexity and time of a network before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...analysis.cost.cost import estimate, estimate_float
from ...ir.level import Level, level_of
from ..framework.base import Context, Pass, option


@dataclass(frozen=True)
class EstimateCost(Pass):
    """Note what the network will cost, from table bits, weight norms and output widths; change nothing."""

    name: ClassVar[str] = "estimate-cost"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.INTEGER)

    bits: int = option(4, help="On a float model: bits that will reach each table.", low=1, high=8)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Append the estimate to ``context.notes``; returns False."""
        if level_of(model) is Level.FLOAT:
            found = estimate_float(model, self.bits, context.target.p_error)
        else:
            found = estimate(model, context.target.p_error)
        context.notes.append(
            f"estimate-cost: {found.bootstraps} bootstraps, complexity {found.complexity / 1e9:.2f} G,"
            f" about {found.seconds(context.target.timings):.2f} s for one sample on one core"
        )
        return False
