"""``insert-rounding``: drop the least significant bits of accumulators, so that tables take few bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from ....analysis.cost.cost import estimate
from ....ir.errors import PipelineError
from ....ir.level import Level
from ....ir.ops import TableLookup
from ....ir.range_options import AUTO, RangeMode, RangeOptions
from ....ir.state import ModelState
from ...framework.base import Context, Pass, option
from .auto import RoundingProblem, choose
from .memo import Memo
from .rounding import Rounding
from .rounding_setting import RoundingSetting

TOLERANCE = 0.02
"""Mean squared error over the variance of the outputs that rounding may make, where the user sets none."""
TRAINED_TOLERANCE = 0.005
"""The same where no quantization error has been made yet, and a step of a narrow activation is a large
one."""


@dataclass(frozen=True)
class InsertRounding(Pass):
    """Put an offset and a ``RoundBits`` in front of every table that takes more than ``bits`` bits.

    The width is chosen so that rounding up never needs another bit, the offset so that the lattice that is
    left suits the table (recipe of docs/design/lowering.md, steps 4, 5 and 7). Layers are treated in order,
    on what the rounded layers before really produce; an entry of the new table is the mean of the old entries
    that fall on it, weighted by how often calibration data meets them.
    """

    name: ClassVar[str] = "insert-rounding"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    bits: int | Literal["auto"] = option(
        4,
        help="Bits that reach each table; auto takes the fewest within the tolerance, layer by layer.",
        low=1,
        high=8,
    )
    tolerance: float | None = option(
        None,
        help="For auto: mean squared error that rounding adds to the outputs, over their variance; 0.02 where"
        " none is given, and 0.005 for a model that was trained quantized if 5 bits can keep to it.",
        low=0,
    )
    max_bits: int | Literal["auto"] = option(
        "auto",
        help="For auto: most bits that it takes; 6 by default, and up to 8 for single layers where"
        " there are few bootstraps and classes would change.",
        low=2,
        high=8,
        formerly="most",
    )
    mode: Literal["auto", "approximate", "exact"] = option(
        "auto",
        help="exact costs one bootstrap more for each bit removed; auto is approximate, but exact where"
        " results are shared.",
    )
    range_fill: Literal["none", "free", "full"] = option(
        "free",
        help="Multiply channels so that they fill the range: not, as far as it costs nothing, or fully.",
        formerly="fill",
    )
    output_bits: int | Literal["auto"] = option(
        "auto",
        help="Bits of raw outputs to decrypt (free, and makes every bootstrap cheaper); 0 for all.",
        low=0,
        high=20,
    )
    layers: Mapping[str, int] = option({}, help="Bits for single layers, by node name; 0 for no rounding.")

    def run(self, model: ir.Model, context: Context) -> bool:
        """Round in front of the tables of ``model``, in place.

        Raises:
            DataError: There is no calibration data.
            PipelineError: ``layers`` names a layer that has no table.
        """
        names = {t.node: (t.name, t.title[0]) for t in TableLookup.all_in(model)}
        tables = list(names)
        known = {name for pair in names.values() for name in pair}
        for layer, bits in self.layers.items():
            if not 0 <= bits <= 8:
                raise PipelineError(
                    f"insert-rounding: layer {layer!r} cannot be rounded to {bits} bits",
                    pass_name=self.name,
                    allowed="1 to 8, and 0 for no rounding",
                )
            if layer not in known:
                raise PipelineError(
                    f"insert-rounding: there is no table behind a node {layer!r}",
                    pass_name=self.name,
                    allowed=", ".join(sorted(pair[1] for pair in names.values())),
                    do="use the node names that `onnx-fhe inspect` prints",
                )
        if not tables:
            return False
        data = context.require_calibration(self.name)
        fixed = {
            t: next((self.layers[n] for n in pair if n in self.layers), None) for t, pair in names.items()
        }
        rounding = Rounding(self._mode(context), self.output_bits)
        if self.bits == "auto":
            trained = ModelState.of(model).trained
            limits = (TRAINED_TOLERANCE if trained else TOLERANCE, TOLERANCE)
            if self.tolerance is not None:
                limits = (self.tolerance, self.tolerance)
            problem = RoundingProblem(
                model,
                data,
                tables,
                fixed,
                rounding,
                self.range_fill,
                max_bits=None if self.max_bits == "auto" else self.max_bits,
                limits=limits,
                judges_all_loss=self.tolerance is None and not trained,
            )
            chosen, context = _cheapest(problem, context, trained)
            if trained and self.tolerance is None:
                context.notes.append(
                    "insert-rounding: this model was trained quantized and is exact up to here; rounding"
                    " in front of tables is not (set its tolerance, or leave the pass out to keep every"
                    " integer)"
                )
        else:
            chosen = [RoundingSetting(self.bits if f is None else f, self.range_fill) for f in fixed.values()]
        return rounding.apply(model, data, dict(zip(tables, chosen, strict=True)), context)

    def _mode(self, context: Context) -> Literal["approximate", "exact"]:
        if context.target.results == "owner":
            return "exact" if self.mode == "exact" else "approximate"
        if self.mode == "approximate":
            raise PipelineError(
                "results that are shared must not depend on noise, as those of approximate rounding do",
                pass_name=self.name,
                found="mode=approximate",
                allowed="mode=auto or mode=exact",
                do="leave mode out; it is exact then",
            )
        return "exact"


def _cheapest(
    problem: RoundingProblem, context: Context, trained: bool
) -> tuple[list[RoundingSetting], Context]:
    """Settings, and the context to round in: with sound ranges where they cost nothing.

    Integers that were trained are small, so that what can happen at all is often hardly wider than what
    was observed with a margin; and then no input can overflow.
    """
    modes: list[RangeMode] = [context.ranges.mode]
    if trained and context.ranges == RangeOptions("observed", AUTO):
        modes.append("sound")
    found = []
    for mode in modes:
        trying = replace(context, ranges=replace(context.ranges, mode=mode)).with_notes([])
        chosen = choose(problem, trying)
        price = 0.0
        if len(modes) > 1:
            tried = problem.model.clone()
            by_name = {n.name: n for n in tried.graph}
            settings = {by_name[t.name]: s for t, s in zip(problem.tables, chosen, strict=True)}
            problem.rounding.apply(tried, problem.data, settings, trying, memo=Memo())
            price = estimate(tried).complexity
        found.append((price, chosen, trying))
    _, chosen, trying = min(reversed(found), key=lambda f: f[0])
    context.notes.extend(trying.notes)
    if trying.ranges != context.ranges:
        context.notes.append(
            "insert-rounding: sound ranges cost no more here, so that no input can overflow in front of"
            " these tables"
        )
    return chosen, replace(context, ranges=trying.ranges)
