"""Choosing layers: each candidate is taken out for trial, fitted, and scored by the outputs of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.divergence import output_error, outputs
from ....analysis.regions.linear import linear_of
from ....analysis.regions.region_analysis import find_regions
from ....ir.errors import UnsupportedError
from ...framework.base import Context
from ..remove_neurons.refit import FloatRun, Refit
from ..remove_neurons.structure import Structure
from ..remove_neurons.weights import Weights
from .between import Between
from .reference import Reference
from .rewrite import Targets, remove
from .sites import Key, Site, find_sites

HELD_BACK_DIVISOR = 5
"""One of so many samples scores what was fitted on the others."""
_MIN_SAMPLES = 20
"""Samples below which none are held back."""
RIDGES = (0.003, 0.03, 0.3, 3.0)
"""Strengths of the ridge that are tried where none is given."""
_FIRST_RIDGE = 0.1
"""The ridge, in the middle of them, with which layers are chosen before the ridge itself is."""


@dataclass(frozen=True)
class Trial:
    """A model with layers removed.

    Attributes:
        keys: The sites that went, in order.
        done: What happened at each, in words.
        error: Output error, of samples that nothing was fitted on.
        bootstraps: That are left.
        ridge: That the fits were made with.
    """

    keys: tuple[Key, ...]
    done: tuple[str, ...]
    error: float
    bootstraps: int
    ridge: float


class Search:
    """Tries removals on copies of a model.

    Args:
        model: The float model; it is not changed.
        context: For the calibration data, and the model as imported, whose outputs are to be kept.
        ridge: Strength of the pull of each fit towards where it starts; None to try some.
        refit: Whether the layers behind a removed one are refitted.
    """

    def __init__(self, model: ir.Model, context: Context, ridge: float | None, refit: bool) -> None:
        self.model = model.clone()
        self.context, self.ridge, self.refit = context, ridge, refit
        data = context.require_calibration("remove-layers")
        self.reference = Reference(self.model, data, context.seed)
        self.between = Between(model.graph.opset_imports.get("", 21))
        total = len(self.reference.samples)
        held = total // HELD_BACK_DIVISOR if total >= _MIN_SAMPLES else 0
        self._fitted_on = slice(held, None)
        self._scored_on = slice(0, held) if held else slice(None)
        self._wanted = outputs(context.source or self.model, self._data(self._scored_on))

    def sites(self, keys: Sequence[Key] = ()) -> tuple[dict[Key, Site], dict[str, str]]:
        """What can go when these are gone, and the reasons of what cannot."""
        copy = self.model.clone()
        self._remove(copy, keys)
        return find_sites(copy, self.between)

    def trial(self, keys: Sequence[Key], ridge: float | None = None) -> Trial:
        """Remove these, one after the other, and score what is left."""
        ridge = ridge or (_FIRST_RIDGE if self.ridge is None else self.ridge)
        copy = self.model.clone()
        done = self._apply(copy, keys, self._fitted_on, ridge)
        error = output_error(outputs(copy, self._data(self._scored_on)), self._wanted)
        error = error if math.isfinite(error) else math.inf
        return Trial(tuple(keys), tuple(done), error, bootstraps(copy), ridge)

    def settle(self, trial: Trial) -> Trial:
        """The same removals with the best ridge, where none was given."""
        if self.ridge is not None or not trial.keys:
            return trial
        for index, ridge in enumerate(RIDGES):
            trial = min(trial, self.trial(trial.keys, ridge), key=lambda t: t.error)
            self.context.progress("try ridges", index + 1, len(RIDGES))
        return trial

    def apply(self, model: ir.Model, trial: Trial) -> None:
        """Remove what went in the trial from ``model`` itself, fitted on all samples."""
        self._apply(model, trial.keys, slice(None), trial.ridge)

    def _apply(self, model: ir.Model, keys: Sequence[Key], rows: slice, ridge: float) -> list[str]:
        targets, done = self._remove(model, keys)
        linears = {n: linear for n in model.graph if (linear := linear_of(n)) is not None}
        names = {str(n.name): n for n in linears}
        changed = [names[name] for name in targets if name in names]
        self.reference.need(n.outputs[0] for n in linears if targets.get(str(n.name)) is None)
        wanted = {}
        for node in linears:
            target = targets.get(str(node.name))
            wanted[node.outputs[0]] = (self.reference[node.outputs[0]] if target is None else target)[rows]
        structure = Structure([], linears, {})
        run = FloatRun(self._data(rows), wanted, self.context.seed)
        Refit(structure, Weights(model, structure), run, ridge).walk([], changed=changed, follow=self.refit)
        return done

    def _remove(self, model: ir.Model, keys: Sequence[Key]) -> tuple[Targets, list[str]]:
        targets: Targets = {}
        done = []
        for key in keys:
            site = find_sites(model, self.between)[0][key]
            done.append(str(site))
            for name, target in remove(model, site, self.reference).items():
                # What a dropped branch asked of an operator holds on when another is merged into that.
                if target is not None or name not in targets:
                    targets[name] = target
        return targets, done

    def _data(self, rows: slice) -> dict[str, np.ndarray]:
        return {k: v[rows] for k, v in self.reference.data.items()}


def greedy(search: Search, count: int, tolerance: float | None) -> Trial | None:
    """Remove the layer that costs least for each bootstrap saved, again and again.

    Args:
        search: Tries.
        count: How many go, where there is no tolerance.
        tolerance: Most output error; then as many go as keep to it.

    Returns:
        The last trial; None where nothing can go.
    """
    best: Trial | None = None
    before = bootstraps(search.model)
    stale: dict[Key, float] = {}
    while tolerance is not None or len(best.keys if best else ()) < count:
        gone = best.keys if best else ()
        fresh: dict[Key, Trial] = {}
        pending = {k: stale.get(k, -math.inf) for k in search.sites(gone)[0]}
        total = len(pending)
        # The old score of a site hardly ever falls when others go: those with the lowest are tried first, and
        # the rest is left alone as soon as one that was tried is below them.
        while pending:
            key = min(pending, key=pending.__getitem__)
            if fresh and min(stale[k] for k in fresh) <= pending[key]:
                break
            del pending[key]
            trial = search.trial([*gone, key])
            saved = before - trial.bootstraps
            stale[key] = trial.error / saved if saved > 0 else math.inf
            search.context.progress("try layers to remove", total - len(pending), total)
            if saved > 0 and (tolerance is None or trial.error <= tolerance):
                fresh[key] = trial
        if not fresh:
            break
        best = fresh[min(fresh, key=stale.__getitem__)]
    return best


def bootstraps(model: ir.Model) -> int:
    """Table lookups for one sample; elements of linear layers where the model cannot run encrypted yet."""
    try:
        values = find_regions(model).quantized
    except UnsupportedError:
        values = [n.outputs[0] for n in model.graph if linear_of(n) is not None]
    return sum(math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int)) for v in values)
