"""``shrink``: layers and neurons go and the rest is trained, as far as a stated loss allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ....ir.level import Level, level_of, set_level
from ...framework.base import Context, Pass, option
from .search import Search
from .settings import ShrinkSettings


@dataclass(frozen=True)
class Shrink(Pass):
    """Remove layers and neurons, train what is left, and go back where that loses too much.

    It runs other passes (``remove-layers``, ``remove-neurons``, ``quantize``, ``distill``, those that make
    tables, ``insert-rounding``) for a few sizes of the network, and judges each on calibration inputs that it
    held back: nothing was fitted to them (fewer than 200 are held back in turns, a quarter at a time). What
    is expected to lose more than ``loss`` is not taken: wider tables, then a larger network are tried, and in
    the end the whole one without training. Where a network is well within it, a smaller one is tried too.
    Its notes say what was taken, as a pipeline.
    """

    name: ClassVar[str] = "shrink"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT,)
    produces: ClassVar[Level | None] = Level.INTEGER
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    loss: float = option(
        0.01,
        help="Most accuracy that may be lost, as expected by the inputs held back; for values twice that of"
        " R^2.",
        low=0,
        high=1,
    )
    validation_share: float = option(
        0.3,
        help="Share of the calibration data to judge by (400 samples at most).",
        low=0.05,
        high=0.5,
        formerly="hold",
    )
    weights: int = option(4, help="Bits of weights that are trained.", low=2, high=8)
    activations: int = option(6, help="Bits of activations, where the network is trained.", low=2, high=8)

    @property
    def settings(self) -> ShrinkSettings:
        """What the search is asked for."""
        return ShrinkSettings(self.loss, self.validation_share, self.weights, self.activations)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Make an integer-level model of ``model``, in place.

        Raises:
            DataError: There is no calibration data.
        """
        search = Search(self.settings, model, context)
        taken = search.run()
        context.notes.extend([*search.told, *taken.notes])
        context.notes.append(f"shrink: took {taken.pipeline}")
        if search.turns:
            context.findings.expected.append(taken.found)
        elif search.fitting is not search.context:
            context.findings.unfitted.append(search.folds[0].held)
        model.graph = taken.model.graph
        set_level(model, level_of(taken.model))
        model.metadata_props.update(taken.model.metadata_props)
        return True
