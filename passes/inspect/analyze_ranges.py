"""``analyze-ranges``: what every integer tensor can hold, and what it held on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ...analysis.ranges import ranges
from ...analysis.regions.fusion_groups import after_encrypt, is_integer
from ...ir import annotations as notes
from ...ir import dialect
from ...ir.interval_arithmetic import Interval
from ...ir.level import Level
from ..framework.base import Context, Pass, option


@dataclass(frozen=True)
class AnalyzeRanges(Pass):
    """Annotate integer tensors with ranges.

    ``sound`` bounds hold for any input that the client may encrypt (interval arithmetic); ``observed`` ones
    are what calibration data shows, without margin. With ``both`` the annotation holds the observed range
    beside the sound one.
    """

    name: ClassVar[str] = "analyze-ranges"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)

    mode: Literal["sound", "observed", "both"] = option("both", help="Which ranges to compute.")

    def run(self, model: ir.Model, context: Context) -> bool:
        """Annotate ``model``.

        Raises:
            DataError: Observed ranges were asked for by name and there is no calibration data.
        """
        encrypted = after_encrypt(model)
        values = [
            o for n in model.graph if n in encrypted and _is_kept(n) for o in n.outputs if is_integer(o)
        ]
        before = [dict(v.metadata_props) for v in values]
        seen: dict[ir.Value, Interval] = {}
        if self.mode == "observed" or (self.mode == "both" and context.calibration is not None):
            seen = ranges.observed(model, context.require_calibration(self.name), values)
        sound = ranges.SoundRanges(model)
        for index, value in enumerate(values):
            if self.mode != "observed":
                low, high = sound.of(value)
                bounds = {"sound_low": int(low.min()), "sound_high": int(high.max())}
                notes.put(value, **bounds, low=bounds["sound_low"], high=bounds["sound_high"])
            if value in seen:
                low, high = seen[value]
                notes.put(value, low=int(low.min()), high=int(high.max()))
            context.progress("analyze ranges", index + 1, len(values))
        return before != [dict(v.metadata_props) for v in values]


def _is_kept(node: ir.Node) -> bool:
    """Whether a node is not going to be a part of a table."""
    return node.domain in {"", dialect.DOMAIN} and node.op_type not in {"Cast", "QuantizeLinear"}
