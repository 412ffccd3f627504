"""``refine-tables``: choose the entries of tables for what the layers that read them should compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ....analysis.ranges.ranges import SoundRanges
from ....ir.level import Level
from ....ir.ops import TableLookup
from ...framework.base import Context, Pass, option
from .ranges import fit_ranges, restore, saved
from .reading import Reading
from .solve import Entries, descend
from .targets import float_outputs


@dataclass(frozen=True)
class RefineTables(Pass):
    """Move the entries of tables so that the rounding errors of a layer's neurons cancel in the next layer.

    A table of few bits rounds each neuron's activation by itself, as near as it gets; the layer that reads
    all of them adds the errors up. Here the tables of a layer are fitted together, by coordinate descent:
    what the next layer still misses of the float model's values (of ``Context.quantized_from``: neurons that
    were removed before are not missed) is handed to one
    neuron after the other, and its table takes the mean of what it should have put out, given its own
    input. Bit widths, weights and the number of bootstraps stay as they are; tables that were monotone stay
    so, and in sound mode no table puts out more than before.

    It pays where a layer has more neurons than its input has dimensions, so that one can make up for
    another (six points on the checkerboard networks of 100 neurons and 2 inputs at 3 bits), and changes
    little elsewhere.

    Tables are left alone whose readers are not all linear operators that the float model has under the same
    name and in the same shape, or whose readers have little in common with it (another network's).
    """

    name: ClassVar[str] = "refine-tables"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    sweeps: int = option(3, help="How often every neuron gets its turn.", low=1, high=100)
    prior: float = option(
        16.0, help="How many samples an entry needs before they count more than the table there was.", low=0
    )

    def run(self, model: ir.Model, context: Context) -> bool:
        """Refine the tables of ``model`` in place.

        Raises:
            DataError: There is no calibration data.
        """
        tables = TableLookup.all_in(model)
        if not tables:
            return False
        data = context.require_calibration(self.name)
        wanted = float_outputs(context.quantized_from or context.source, data, context)
        modified, before, after = False, [], []
        for index, table in enumerate(tables):
            context.progress("refine tables", index, len(tables))
            reading = Reading.of(model, table.node, wanted)
            problem = reading.problem(model, data) if reading is not None else None
            if problem is None:
                continue
            # Ranges that hold for any input have to go on doing so.
            bounds = SoundRanges(model).of(table.output) if context.ranges.mode == "sound" else None
            entries = Entries.of(table, problem.inputs, self.prior, bounds)
            result = descend(entries, problem, self.sweeps, context.seed)
            if not result.error < problem.error or np.array_equal(result.table, entries.table):
                continue
            undo = saved(model, table)
            entries.write(model, result.table)
            if not fit_ranges(model, table, data):
                restore(undo)
                continue
            modified = True
            before.append(problem.error)
            after.append(result.error)
        if modified:
            context.notes.append(
                f"refine-tables: {len(after)} of {len(tables)} layers of tables refined; layers that read"
                f" them miss {np.mean(after):.2%} of the variance, {np.mean(before):.2%} before"
            )
        return modified
