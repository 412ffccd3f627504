"""``remove-layers``: whole layers go; linear, activation, linear becomes one linear operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ....analysis.cost.cost import too_large_for_trials
from ....ir.errors import DataError, PipelineError
from ....ir.graph import layer_of
from ....ir.level import Level
from ...framework.base import Context, Pass, option
from .search import Search, Trial, bootstraps, greedy
from .sites import Key

_MAX_SHOWN_REASONS = 3
"""Layers whose reason to stay a note gives; the others are counted."""


@dataclass(frozen=True)
class RemoveLayers(Pass):
    """Remove layers, activation and all, and fit what is left to the float model on calibration data.

    Two linear operators with element-wise operators, pooling or layout between them become one, fitted by
    ridge least squares to the pre-activations that the second had. So do convolutions (with the composed
    kernel, stride, dilation and padding), and convolutions in front of a dense layer. Of a residual sum a
    branch goes: what is left is the other operand, scaled and shifted for each channel, or its projection,
    refitted. Of all that can go it takes what costs least output error for each bootstrap saved. This is
    where ``distill`` starts; alone it is worth little accuracy, but for layers that are nearly linear.
    """

    name: ClassVar[str] = "remove-layers"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    count: int = option(1, help="How many layers go.", low=0)
    layers: tuple[str, ...] = option(
        (),
        help="Instead of count: the layers whose activations go, by the name of the linear operator in front"
        " of the activation, of the activation, or of the sum that a branch goes from.",
    )
    tolerance: float | None = option(
        None,
        help="Instead of count: remove as many as keep the output error (mean squared error over variance)"
        " below this.",
        low=0,
    )
    ridge: float | Literal["auto"] = option(
        "auto",
        help="How strongly a fit is pulled to where it starts: the layers composed, with lines for curves.",
        low=0,
    )
    refit: bool = option(True, help="Fit the layers behind a removed one anew, too.")

    def run(self, model: ir.Model, context: Context) -> bool:
        """Remove layers from ``model`` in place; returns whether any went.

        Raises:
            DataError: There is no calibration data, or a single sample.
            PipelineError: ``layers`` names a node that no layer can go with.
        """
        data = context.require_calibration(self.name)
        if any(len(v) < 2 for v in data.values()):
            raise DataError(
                "a fit needs more than one sample", found="1 or none", allowed="a few hundred typical inputs"
            )
        size = too_large_for_trials(model, len(next(iter(data.values()))))
        if size and not self.layers:
            context.notes.append(
                f"remove-layers: nothing was tried in a network this large ({size}); name the layers that"
                " are to go, or give fewer calibration samples if these are many"
            )
            return False
        ridge = None if self.ridge == "auto" else self.ridge
        search = Search(model, context, ridge, self.refit)
        best = self._named(search) if self.layers else greedy(search, self.count, self.tolerance)
        keys = best.keys if best is not None else ()
        if best is not None and best.keys:
            best = search.settle(best)
            before = bootstraps(model)
            search.apply(model, best)
            context.notes.append(_note(best, before))
        if not self.layers and (self.tolerance is not None or len(keys) < self.count):
            sites, reasons = search.sites(keys)
            context.notes.append(_why_no_more(len(sites), reasons))
        return bool(keys)

    def _named(self, search: Search) -> Trial:
        """What the user asked for; where a name may mean several, what costs least."""
        keys: list[Key] = []
        trial = search.trial(keys)
        for layer in self.layers:
            sites, reasons = search.sites(keys)
            meant = [k for k, site in sites.items() if layer in site.names]
            if not meant:
                allowed = sorted({str(site.key[0]) for site in sites.values()})
                raise PipelineError(
                    f"remove-layers: no layer goes with {layer!r}",
                    pass_name=self.name,
                    found=_reason(search.model, layer, reasons),
                    allowed=", ".join(allowed) or "nothing in this model",
                    do="use the node names that `onnx-fhe inspect` prints",
                )
            trial = min((search.trial([*keys, k]) for k in meant), key=lambda t: t.error)
            keys = list(trial.keys)
        return trial


def _note(trial: Trial, before: int) -> str:
    return (
        f"remove-layers: {'; '.join(trial.done)}: {before} to {trial.bootstraps} bootstraps, output error"
        f" {trial.error:.2g} of the variance"
    )


def _why_no_more(sites: int, reasons: dict[str, str]) -> str:
    if sites:
        return f"remove-layers: {sites} more could go, but past the tolerance or for no bootstrap saved"
    listed = [f"{name}: {why}" for name, why in reasons.items()]
    more = f"; and {len(listed) - _MAX_SHOWN_REASONS} more" if len(listed) > _MAX_SHOWN_REASONS else ""
    return f"remove-layers: no other layer can go: {'; '.join(listed[:_MAX_SHOWN_REASONS])}{more}"


def _reason(model: ir.Model, name: str, reasons: dict[str, str]) -> str:
    """Why nothing goes with this node; an activation shares the reason of the layer in front of it."""
    for node in model.graph:
        if node.name == name:
            layer = layer_of(node.outputs[0])
            return reasons.get(name) or reasons.get(
                str(layer.name) if layer else "", "no layer in front of it"
            )
    return "no node of that name"
