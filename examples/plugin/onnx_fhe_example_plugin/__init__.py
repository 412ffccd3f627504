"""An example plug-in of onnx-fhe: the pass ``clip-weights``.

A plug-in is a module that registers what it brings. Copy this folder, rename it, and write your own ``run``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnx_fhe.ir.level import Level
from onnx_fhe.passes import Context, Pass, option, register_pass

LINEAR = frozenset({"Conv", "Gemm", "MatMul"})


@register_pass
@dataclass(frozen=True)
class ClipWeights(Pass):
    """Clip the weights of linear operators, so that a few large ones do not stretch the quantizer's range."""

    name: ClassVar[str] = "clip-weights"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    limit: float = option(3.0, help="Largest absolute weight, in standard deviations of its layer.", low=0.1)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Clip in place; returns whether any weight was."""
        clipped = 0
        for node in model.graph:
            weight = node.inputs[1] if node.op_type in LINEAR else None
            if weight is None or weight.const_value is None:
                continue
            old = weight.const_value.numpy()
            bound = self.limit * old.std()
            new = np.clip(old, -bound, bound)
            if changed := int((new != old).sum()):
                weight.const_value = ir.tensor(new, name=weight.name)
                clipped += changed
        if clipped:
            context.notes.append(f"{self.name}: {clipped} weights clipped")
        return clipped > 0
