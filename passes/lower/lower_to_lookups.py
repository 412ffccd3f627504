"""``lower-to-lookups``: maxima, products and functions of pairs become sums and table lookups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...analysis.expansion.expand import expand
from ...ir.level import Level
from ..framework.base import Context, Pass


@dataclass(frozen=True)
class LowerToLookups(Pass):
    """Replace every operator on several encrypted elements by sums and lookups of one input.

    Backends do this by themselves: until then the integer model keeps MaxPool, Max, Mul and MatMul as they
    are, so that tables move past them and no rounding touches what must stay exact. Max-pooling is a
    tournament along each axis that shares comparisons between overlapping windows; a product is taken from
    tables of sums and differences, or of all pairs, whichever is estimated to be cheapest.
    """

    name: ClassVar[str] = "lower-to-lookups"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Expand ``model`` in place."""
        return expand(model)
