"""``remove-neurons``: whole neurons, channels and filters go, and every coupled tensor shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.level import Level
from .base import Context, Pass, option
from .removing.exact import remove_exactly
from .removing.shrink import shrink
from .removing.structure import find_structure
from .removing.weights import Weights


@dataclass(frozen=True)
class RemoveNeurons(Pass):
    name: ClassVar[str] = "remove-neurons"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    def run(self, model: ir.Model, context: Context) -> bool:
        structure = find_structure(model)
        weights = Weights(model, structure)
        removed = remove_exactly(model, structure, weights)
        weights.store()
        shrink(model, structure.linears, structure.keep(removed))
        return bool(removed)
