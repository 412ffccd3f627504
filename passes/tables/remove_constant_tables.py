"""``remove-constant-tables``: neurons that always give the same, or that nobody hears, leave the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.ranges import SoundRanges
from ...ir.integer_editing import IntegerEditor
from ...ir.level import Level
from ..framework.base import Context, Pass
from .common import folding, neurons, pricing, shrink, unit
from .common.absorb import input_axis
from .common.moves import Moves
from .common.reach import output_bounds


@dataclass(frozen=True)
class RemoveConstantTables(Pass):
    """Remove tables that give one value for all inputs that can reach them, and the neurons behind them.

    What a constant neuron adds to the next layers becomes an ``Add`` behind them (computed by running them,
    so padding stays right); its weights go, before and behind, and the tensors between shrink. So do neurons
    whose outgoing weights are all zero. A tensor that is constant as a whole becomes a constant. A neuron
    stays where something else than linear operators, layout and constants stands around its table.
    """

    name: ClassVar[str] = "remove-constant-tables"
    accepts: ClassVar[tuple[Level, ...]] = (Level.INTEGER,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "exact"

    def run(self, model: ir.Model, context: Context) -> bool:  # noqa: ARG002
        """Remove constant neurons of ``model`` in place."""
        # From the outputs back: what a removal changes comes behind what is asked next.
        return pricing.improve(model, _Constants, lambda m: reversed(list(unit.tables(m))), together=True)


class _Constants(pricing.Finder):
    def __init__(self, model: ir.Model, moves: Moves) -> None:
        super().__init__(model, moves)
        self.sound = SoundRanges(model)

    def renewed(self) -> pricing.Finder:
        """After a removal most ranges are what they were."""
        self.sound.forget_changed()
        return self

    def __call__(self, node: ir.Node) -> pricing.Rewrite | None:
        found = unit.read(node)
        if found is None:
            return None
        low, high = output_bounds(found, self.sound)
        if (low == high).all() and (folded := folding.plan(self.model, found.output, low)) is not None:
            return lambda: folding.apply(folded, IntegerEditor(self.model))
        site = neurons.find(node, self.moves)
        if site is None:
            return None
        gone = site.per_neuron(low == high).all(axis=1) | _unheard(site)
        if gone.all():
            gone[0] = False  # an empty tensor computes nothing, and its neighbours expect one
        if not gone.any():
            return None
        planned = shrink.plan(site, gone, np.arange(len(gone)), low)
        if planned is None:
            return None
        return lambda: shrink.apply(planned, IntegerEditor(self.model), self.moves)


def _unheard(site: neurons.Site) -> np.ndarray:
    """(neurons): whether every weight that reads one is zero."""
    heard = np.zeros(site.linear.channels, bool)
    for reader in site.readers:
        linear = reader.linear
        weight = np.moveaxis(linear.weight, 0 if linear.node.op_type == "MatMul" else 1, 0)
        used = np.abs(weight).reshape(len(weight), -1).sum(axis=1) > 0
        channel = site.channel.ravel()[reader.way.source]
        first = channel.shape[input_axis(linear) % channel.ndim]
        assert first == len(used)
        lines = np.moveaxis(channel, input_axis(linear), 0).reshape(first, -1)
        heard[lines[used].ravel()] = True
    return ~heard
