"""``fuse-tlu``: all that is computed element by element from one integer tensor becomes one table lookup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...analysis.ranges import ranges
from ...analysis.ranges.margins import TARGET_OVERFLOW_RATE
from ...analysis.ranges.tails import Extremes, distinct
from ...analysis.regions import fusion_groups
from ...ir.integer_editing import IntegerEditor
from ...ir.interval_arithmetic import Interval
from ...ir.level import Level
from ...ir.ops import Decrypt, TableLookup
from ..framework.base import Context, Pass
from .outputs import declare_output
from .pairs import build_pairs
from .tables import build_table, varying_axes


@dataclass(frozen=True)
class FuseTlu(Pass):
    """Replace the float operators between an integer tensor and the next quantizer by a ``TableLookup``.

    A table is computed by running exactly those operators in onnxruntime over the range of the integers, so
    any operator that works element by element will do, alone, in a chain or in a diamond such as ``x *
    sigmoid(x)``. The range is the observed one with a margin, or the sound one (``--range-mode``); the same
    goes for raw outputs. Accumulators of more than 20 bits get coarse tables, whose entries hold for several
    neighbours each: a backend takes them once ``insert-rounding`` has rounded in front of them.
    """

    name: ClassVar[str] = "fuse-tlu"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:
        """Fuse every table of ``model`` in place.

        Raises:
            UnsupportedError: Two encrypted tensors meet in an operator that is no addition.
            LimitError: There are far too many different tables over a wide accumulator.
        """
        found = fusion_groups.find(model)
        decrypts = Decrypt.all_in(model)
        if not found and not decrypts:
            return False
        places = {i.output: (i.source, tuple(varying_axes(i))) for i in found if i.second is None}
        raw = [(d.input, (1,)) for d in decrypts]
        seen: dict[ranges.Place, Extremes] = {}
        if context.ranges.mode == "observed":
            data = context.require_calibration(self.name)
            data = {k: a[distinct(data)] for k, a in data.items()}
            seen = ranges.extremes(model, data, list(dict.fromkeys([*places.values(), *raw])))
        made_before = len(TableLookup.all_in(model))
        target = TARGET_OVERFLOW_RATE / max(1, len(places) + len(raw) + made_before)
        free = bool(seen) and context.ranges.margin == "auto"
        sound = ranges.SoundRanges(model)
        edit = IntegerEditor(model)
        before = [d.range for d in decrypts]

        def declared(place: ranges.Place) -> Interval:
            """What the circuit promises to hold: never more than can happen."""
            return ranges.declare(sound.of(place[0]), seen.get(place), context.ranges.margin, target)

        made: list[tuple[ir.Value, ir.Value]] = []
        for index, group in enumerate(found):
            edit.at(group.nodes[-1])
            if group.second is None:
                output = build_table(model, group, declared(places[group.output]), edit, free)
            else:  # quantized tensors: what they can be at all is what they declare
                bounds = sound.of(group.source), sound.of(group.second)
                output = build_pairs(model, group, *bounds, edit)
            # A group may reach through the one before; until all tables are made both stay as they are.
            sound.set(group.output, sound.of(output))
            made.append((group.output, output))
            context.progress("fuse tables", index + 1, len(found))
        for old, new in made:
            ir.convenience.replace_all_uses_with(old, new)
        RemoveUnusedNodesPass()(model)
        for decrypt in decrypts:
            read = decrypt.input
            declare_output(edit, decrypt, declared((read, (1,))), sound.of(read) if free else None)
        return bool(found) or before != [d.range for d in decrypts]
