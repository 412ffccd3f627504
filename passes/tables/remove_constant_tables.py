"""``remove-constant-tables``: neurons that are constant, or that no weight reads, leave the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from typing_extensions import Self

from ...ir.level import Level
from ..framework.base import Context, Pass
from ..framework.rewriting import Match, Refusal
from .common import folding, neurons, pricing, shrink
from .common.absorb import input_axis
from .common.reach import output_bounds
from .common.shaped_lookup import ShapedLookup


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
        return pricing.improve(
            model, [FoldConstant, RemoveNeurons], lambda m: reversed(pricing.tables(m)), together=True
        )


class _ConstantRewrite(pricing.TableRewrite[Match]):
    """Looks at what tables can return."""

    def renewed(self) -> Self:
        """After a removal most ranges are what they were."""
        self.circuit.sound.forget_changed()
        return self


class FoldConstant(_ConstantRewrite[list[folding.Replacement]]):
    """A tensor that is constant as a whole becomes a constant."""

    name: ClassVar[str] = "fold-constant"

    def match(self, node: ir.Node) -> list[folding.Replacement] | Refusal | None:
        """Where the constant ends."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        low, high = output_bounds(found, self.circuit.sound)
        if not (low == high).all():
            return Refusal("the table does not return one value for each element")
        planned = folding.plan(self.circuit.model, found.output, low)
        return Refusal("an operator behind cannot take the constant in") if planned is None else planned

    def apply(self, match: list[folding.Replacement]) -> None:
        """Compute what follows from the constant now."""
        folding.apply(match, self.circuit.editor())


class RemoveNeurons(_ConstantRewrite[shrink.Plan]):
    """Neurons that are constant, or that no weight reads, leave the network."""

    name: ClassVar[str] = "remove-neurons"

    def match(self, node: ir.Node) -> shrink.Plan | Refusal | None:
        """Which neurons go."""
        found = ShapedLookup.match(node)
        if found is None:
            return None
        low, high = output_bounds(found, self.circuit.sound)
        site = neurons.find(node, self.circuit.moves)
        if site is None:
            return Refusal("not only linear operators, layout and constants stand around it")
        gone = site.per_neuron(low == high).all(axis=1) | _unheard(site)
        if gone.all():
            gone[0] = False  # an empty tensor computes nothing, and its neighbours expect one
        if not gone.any():
            return Refusal("every neuron varies and is read")
        planned = shrink.plan(site, gone, np.arange(len(gone)), low)
        return planned or Refusal("a tensor would not stay rectangular")

    def apply(self, match: shrink.Plan) -> None:
        """Take the neurons out."""
        shrink.apply(match, self.circuit.editor(), self.circuit.moves)


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
