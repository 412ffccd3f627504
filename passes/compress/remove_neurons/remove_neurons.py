"""``remove-neurons``: whole neurons, channels and filters go, and every coupled tensor shrinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ....analysis.cost.cost import too_large_for_trials
from ....analysis.outputs.classes import Kind, kind_of, scores
from ....analysis.outputs.divergence import outputs
from ....ir.errors import PipelineError
from ....ir.level import Level, level_of
from ...framework.base import Context, Pass, option
from .adapt import size_at
from .exact import remove_exactly
from .goal import RemovalTarget, names_of, unit_times
from .plan import Plan, best_plan, follow, most_within
from .shrink import shrink
from .structure import Structure, find_structure
from .weights import Weights

_MAX_SHOWN_REASONS = 3
"""Units whose reason to stay a note gives; the others are counted."""

AUTO: Mapping[Kind, float] = {"classes": 0.003, "values": 0.014}
"""What ``tolerance=auto`` stands for."""
MIN_TOLERANCE_SAMPLES = 64
"""Calibration samples from which on a tolerance can be kept: some of them are held back to see it."""


@dataclass(frozen=True)
class RemoveNeurons(Pass):
    """Remove neurons, channels and filters, with everything that is coupled to them.

    What goes together is found by running the operators of the model: through element-wise operators,
    additions, concatenation, splits, slices, reshapes, transposes, normalization, pooling, grouped and
    depthwise convolutions and shared weights. Channels that reach a graph output, that meet a graph input or
    that an operator mixes stay.

    First goes what costs nothing, exactly: neurons that nobody listens to, constant ones, duplicates. Then
    the cheapest by ``criterion`` until the share or the latency is reached. What reads them is refitted by
    ridge least squares to the pre-activations of the float model, on the inputs that the reduced layers
    before really produce.
    """

    name: ClassVar[str] = "remove-neurons"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    ratio: float = option(
        0.0,
        help="Share of the removable neurons and channels; with 0 only those go that cost nothing.",
        low=0,
        high=1,
    )
    criterion: Literal["output-error", "activation", "l1", "l2"] = option(
        "output-error",
        help="What a neuron is worth: the error that its loss leaves after refitting, the spread of what it"
        " sends, or the norm of its weights.",
    )
    refit: bool = option(True, help="Fit the weights that read removed neurons anew, on calibration data.")
    ridge: float = option(0.003, help="How strongly a fit is pulled to the weights as they were.", low=0)
    balance: Literal["auto", "global", "uniform"] = option(
        "auto",
        help="The ratio of all layers together, of each layer, or whichever keeps the outputs better on"
        " calibration data.",
    )
    latency: float | None = option(
        None,
        help="Instead of ratio: remove until the estimate for one sample is at most these seconds.",
        low=0,
    )
    tolerance: float | Literal["auto"] | None = option(
        None,
        help="Remove at most the ratio, and no more than leaves every output an error (mean squared error"
        " over variance, on calibration samples that nothing was fitted to) below this; those that cost"
        " most go first. auto: 0.003 for classes, 0.014 for values.",
        low=0,
    )
    layers: Mapping[str, float] = option({}, help="ratio of single layers, by node name.", low=0, high=1)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Remove neurons from ``model`` in place; returns whether any went.

        Raises:
            DataError: There is no calibration data, and the criterion or the refit needs it.
            PipelineError: ``layers`` names a node that has no removable neurons.
        """
        if level_of(model) is Level.QDQ:
            # Weights on their way to integers, or trained as such, are not to be fitted anew.
            if self.tolerance is None:
                context.notes.append(f"{self.name}: the model is quantized already, so that all neurons stay")
            return False
        structure = find_structure(model)
        self._check_layers(structure)
        before = {n: linear.channels for n, linear in structure.linears.items()}
        counts = {names_of(layer): len(units) for layer, units in structure.layers().items()}
        free = chosen = 0
        too_large = False
        # What went may have held other channels together: look again until nothing is left to find.
        while gone := remove_exactly(model, structure, Weights(model, structure)):
            shrink(model, structure.linears, structure.keep(gone))
            free += len(gone)
            structure = find_structure(model)
        if self._wishes_more(context):
            too_large = self._is_too_large(model, context)
            plan = None if too_large else self._plan(counts, model, context)
            gone = [] if plan is None else follow(plan, model, structure, context)
            shrink(model, structure.linears, structure.keep(gone))
            chosen = len(gone)
        notes = _notes(structure, before, free, chosen, sum(counts.values()))
        # With a tolerance as many go as can: why others cannot is no news.
        context.notes.extend(notes if self.tolerance is None else notes[: bool(free + chosen)])
        left = (
            unit_times(model, structure, context.target.timings)[1] / 1000
            if self.latency is not None
            else 0.0
        )
        if self.latency is not None and left > self.latency and not too_large:
            context.notes.append(
                f"remove-neurons: nothing more can go, and one sample still takes about {left:.2g} s"
            )
        return free + chosen > 0

    def _wishes_more(self, context: Context) -> bool:
        """Whether units that cost something are to go, and there is calibration data to choose them by."""
        if (
            self.tolerance is not None
            and len(next(iter(context.require_calibration(self.name).values()))) < MIN_TOLERANCE_SAMPLES
        ):
            return False
        return bool(self.ratio or self.layers or self.latency is not None)

    def _is_too_large(self, model: ir.Model, context: Context) -> bool:
        """Whether weighing every neuron's part in the outputs would take hours; then nothing is removed."""
        if self.criterion != "output-error" or context.calibration is None:
            return False
        size = too_large_for_trials(model, len(next(iter(context.calibration.values()))))
        if size:
            context.notes.append(
                f"remove-neurons: none were weighed by output error in a network this large ({size});"
                " criterion=l2 does without"
            )
        return bool(size)

    def _plan(self, counts: Mapping[tuple[str, ...], int], model: ir.Model, context: Context) -> Plan | None:
        if self.tolerance is None:
            return best_plan(self._plans(counts, context), model, context)
        plan = self._plans(counts, context)[-1]
        return most_within(plan, self._tolerance(model, context), model, context)

    def _tolerance(self, model: ir.Model, context: Context) -> float:
        """What may be lost: a part of what rounding may lose later, less where classes may change by it."""
        if self.tolerance is not None and self.tolerance != "auto":
            return float(self.tolerance)
        found, cut = outputs(model, context.require_calibration(self.name)), scores(model)
        if not cut or not all(a.dtype.kind == "f" for a in found):
            return AUTO["classes"]
        return AUTO[kind_of(found, cut, list(model.graph.outputs))]

    def _plans(self, counts: Mapping[tuple[str, ...], int], context: Context) -> list[Plan]:
        """What to try; without calibration data nothing can be compared."""
        balances = [self.balance] if self.balance != "auto" else ["global", "uniform"]
        if self.tolerance is not None and self.balance == "auto":
            balances = balances[:1]
        if self.latency is not None or context.calibration is None or not self.ratio:
            balances = balances[:1]
        again = [False, True] if self.refit and self.criterion == "output-error" else [False]
        latency = None if self.latency is None else self.latency * 1000
        priced = self.tolerance is not None
        targets = [
            RemovalTarget(self.ratio, b == "uniform", self.layers, latency, priced, counts) for b in balances
        ]
        return [Plan(w, self.criterion, self.refit, self.ridge, a) for w in targets for a in again]

    def _check_layers(self, structure: Structure) -> None:
        names = {str(n.name) for layer in structure.layers() for n in layer}
        for layer in self.layers:
            if layer not in names:
                raise PipelineError(
                    f"remove-neurons: no neurons of {layer!r} can be removed",
                    pass_name=self.name,
                    found=structure.reasons.get(layer, "no linear layer of that name"),
                    allowed=", ".join(sorted(names)) or "nothing in this model",
                    do="use the node names that `onnx-fhe inspect` prints",
                )


def _notes(
    structure: Structure, before: Mapping[ir.Node, int], free: int, chosen: int, total: int
) -> list[str]:
    """What went from which layers, and why others were left alone."""
    notes = []
    after = {n: size_at(n.outputs[0], linear.channel_axis) for n, linear in structure.linears.items()}
    if free + chosen:
        parts = [f"{n.name} {before[n]} to {count}" for n, count in after.items() if count < before[n]]
        notes.append(
            f"remove-neurons: removed {free + chosen} of {total} neurons or channels, {free} of them at no"
            f" cost: {', '.join(parts)}"
        )
    left = [f"{name}: {why}" for name, why in structure.reasons.items()]
    if left:
        more = f"; and {len(left) - _MAX_SHOWN_REASONS} more" if len(left) > _MAX_SHOWN_REASONS else ""
        notes.append(f"remove-neurons: left alone: {'; '.join(left[:_MAX_SHOWN_REASONS])}{more}")
    if not structure.linears:
        notes.append("remove-neurons: no linear layer with constant weights and a free batch axis was found")
    return notes
