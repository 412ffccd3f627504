"""``set-p-error``: records in the model how often a table lookup may go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from ...ir.errors import PipelineError
from ...ir.level import Level
from ...ir.ops import TableLookup
from ...ir.state import ModelState
from ..framework.base import Context, Pass, option
from .common.tolerable import MAX_P_ERROR, largest_tolerable


@dataclass(frozen=True)
class SetPError(Pass):
    """Record the tolerated error of every table lookup, of single layers, or of the whole circuit.

    A larger error makes every bootstrap cheaper. ``search`` finds the largest one whose effect on calibration
    data stays within ``tolerance``, by bisection on the model with the noise of encryption injected (as users
    of Concrete ML do by hand on its simulation). What is recorded goes before ``--p-error``; lookups that say
    nothing keep that. Concrete has one setting for a circuit: there the smallest holds for all.
    """

    name: ClassVar[str] = "set-p-error"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)

    p_error: float | None = option(None, help="Tolerated error of each table lookup.", low=0, high=1)
    global_p_error: float | None = option(
        None, help="Tolerated error of the whole circuit, besides.", low=0, high=1
    )
    layers: Mapping[str, float] = option({}, help="Tolerated error for single layers, by node name.")
    search: bool = option(False, help="Find the largest tolerable error of all lookups.")
    tolerance: float = option(
        0.01, help="For the search: how much more `measure` may be than at the usual error.", low=0, high=1
    )
    measure: Literal["predictions", "output-error"] = option(
        "predictions",
        help="For the search: share of samples whose largest output is another one than without noise, or the"
        " mean squared error of the outputs over their variance (taken where an output has no classes).",
    )
    max_p_error: float = option(
        MAX_P_ERROR, help="For the search: the largest error that it tries.", low=0, high=1, formerly="most"
    )
    draws: int = option(4, help="For the search: how often the noise is drawn.", low=1, high=1000)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Record the errors; returns whether a record changed.

        Raises:
            PipelineError: An error is no probability, a layer has no table, or nothing is asked for.
            DataError: The search has no calibration data.
        """
        self._check()
        tables = TableLookup.all_in(model)
        own = self._of_layers(tables)
        shared = self.p_error
        if self.search:
            found = largest_tolerable(
                model,
                context.require_calibration(self.name),
                context.target.p_error,
                self.max_p_error,
                self.tolerance,
                self.measure,
                self.draws,
                context,
            )
            shared = found.p_error
            context.notes.append(f"set-p-error: {found.describe()}")
        before, state = [t.p_error for t in tables], ModelState.of(model)
        for table in tables:
            chosen = own.get(table, shared)
            if chosen is not None:
                table.set_p_error(chosen)
        if self.global_p_error is not None:
            replace(state, global_p_error=self.global_p_error).record(model)
        return before != [t.p_error for t in tables] or state != ModelState.of(model)

    def _check(self) -> None:
        given = {
            "p-error": self.p_error,
            "global-p-error": self.global_p_error,
            "max-p-error": self.max_p_error,
        }
        for what, value in [*given.items(), *(("layers", v) for v in self.layers.values())]:
            if value is not None and not 0 < value < 1:
                raise PipelineError(
                    "set-p-error: a tolerated error is no probability",
                    found=f"{what}={value:g}",
                    allowed="more than 0 and less than 1",
                )
        if self.search and self.p_error is not None:
            raise PipelineError(
                "set-p-error: give an error or search for one, not both",
                found=self.to_text(),
                do="leave p-error away, or search=false",
            )
        if not self.search and self.p_error is None and self.global_p_error is None and not self.layers:
            raise PipelineError(
                "set-p-error: nothing is asked for",
                found=self.to_text(),
                allowed="p-error, global-p-error, layers or search=true",
            )

    def _of_layers(self, tables: list[TableLookup]) -> dict[TableLookup, float]:
        """The errors of single layers, by table."""
        names = {t: (t.name, t.title[0]) for t in tables}
        known = {name for pair in names.values() for name in pair}
        for layer in self.layers:
            if layer not in known:
                raise PipelineError(
                    f"set-p-error: there is no table behind a node {layer!r}",
                    allowed=", ".join(sorted({pair[1] for pair in names.values()})),
                    do="use the node names that `onnx-fhe inspect` prints",
                )
        return {
            t: next(self.layers[n] for n in pair if n in self.layers)
            for t, pair in names.items()
            if any(n in self.layers for n in pair)
        }
