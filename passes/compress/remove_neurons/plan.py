"""Ways to remove units until a goal is reached, and the one of them that keeps the outputs best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ....analysis.environment import Environment
from ....analysis.outputs.divergence import outputs, worst_error
from ....ir.calibration import Calibration
from ....ir.errors import DataError
from ...framework.base import Context
from .coupling import input_of
from .criteria import NORMS, Criterion, Fixed, OutputError, choose
from .goal import Goal, Layer, RemovalTarget, unit_times
from .moments import moments_of
from .refit import FloatRun, Refit, float_run
from .structure import Structure, Unit, find_structure
from .weights import Weights

HELD_BACK_DIVISOR = 4
"""One calibration sample of so many is held back, to judge by it what was fitted to the others."""
SEARCH_RESOLUTION = 64
"""The search for how many units may go ends when it is that exact: within this part of them."""


@dataclass(frozen=True)
class Plan:
    """What to remove, and how to choose it.

    Attributes:
        target: How much.
        criterion: l1, l2, activation or output-error.
        refit: Whether readers are refitted.
        ridge: Strength of the pull towards the weights as they were.
        again: Whether the units of each layer are chosen once more when the layers before are done.
        order: Numbers of units that go, in this order, where they are known already; then there is no target.
    """

    target: RemovalTarget
    criterion: str
    refit: bool
    ridge: float
    again: bool = False
    order: tuple[int, ...] | None = None

    @property
    def needs_data(self) -> bool:
        """Whether it cannot do without calibration data."""
        return self.refit or self.criterion not in NORMS


def best_plan(plans: list[Plan], model: ir.Model, context: Context) -> Plan:
    """The plan whose result has the least output error on calibration data."""
    if len(plans) == 1 or context.calibration is None:
        return plans[0]
    errors = [_error(plan, model, context) for plan in plans]
    return plans[int(np.argmin(errors))]


def most_within(plan: Plan, tolerance: float, model: ir.Model, context: Context) -> Plan | None:
    """The plan, with as many of its units as leave an output error of at most ``tolerance``.

    The error is that of calibration samples which nothing was fitted to, with a surcharge for how few they
    are. None where one unit leaves more. Needs calibration data.
    """
    data = Calibration.of(_calibration(context))
    held = np.arange(len(next(iter(data.values())))) % HELD_BACK_DIVISOR == 0
    fitted, judged = replace(context, calibration=data.take(~held)), data.take(held)
    careful = tolerance / (1 + 2 / np.count_nonzero(held) ** 0.5)
    structure, wanted = find_structure(model), outputs(model, judged)
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in wanted):
        return None  # whoever needs finite numbers says where they end
    weights = Weights(model, structure)
    reference = (
        float_run(model, structure, fitted.calibration or {}, fitted.seed) if plan.needs_data else None
    )
    order = [u.number for u in _first_choice(plan, model, structure, weights, reference, fitted)]
    low, high = 0, len(order) + 1
    while high - low > max(1, len(order) // SEARCH_RESOLUTION):
        count = (low + high) // 2
        tried = replace(plan, order=tuple(order[:count]))
        if _error(tried, model, fitted, judged, wanted) <= careful:
            low = count
        else:
            high = count
        context.progress("try how many to remove", len(order) - (high - low), len(order))
    return replace(plan, order=tuple(order[:low])) if low else None


def _error(
    plan: Plan,
    model: ir.Model,
    context: Context,
    judged: Mapping[str, np.ndarray] | None = None,
    wanted: list[np.ndarray] | None = None,
) -> float:
    """Output error that a plan leaves, over the variance, on ``judged`` samples (those of calibration)."""
    data = _calibration(context) if judged is None else judged
    copy = model.clone()
    follow(plan, copy, find_structure(copy), context)
    return worst_error(outputs(copy, data), outputs(model, data) if wanted is None else wanted)


def follow(plan: Plan, model: ir.Model, structure: Structure, context: Context) -> list[Unit]:
    """Mark units as removed until the goal is reached, and refit what reads them.

    Args:
        plan: What to do.
        model: Its weights and biases change; nothing shrinks yet.
        structure: All units.
        context: For the calibration data.

    Returns:
        The units that went.
    """
    weights = Weights(model, structure)
    reference = None
    if plan.needs_data:
        reference = float_run(model, structure, _calibration(context), context.seed)
    if plan.order is None:
        removed = _first_choice(plan, model, structure, weights, reference, context)
    else:
        known = {u.number: u for u in structure.units}
        removed = [known[number] for number in plan.order]
    if removed and plan.refit and reference is not None:
        refit = Refit(structure, weights, reference, plan.ridge)
        if plan.again:
            return refit.walk([], _Again(plan, structure, weights, reference, removed))
        return refit.walk(removed)
    for unit in removed:
        weights.remove(unit)
    weights.store()
    return removed


def _first_choice(
    plan: Plan,
    model: ir.Model,
    structure: Structure,
    weights: Weights,
    reference: FloatRun | None,
    context: Context,
) -> list[Unit]:
    """What goes by the plan, from what costs least on."""
    times, total = dict[int, float](), 0.0
    if plan.target.latency is not None or plan.target.priced:
        times, total = unit_times(model, structure, context.target.timings)
    goal = Goal(structure, plan.target, times, total)
    removed = choose(structure.units, _criterion(plan, structure, weights, reference), goal)
    back = {u.number for u in goal.give_back(removed)}
    return [u for u in removed if u.number not in back]


def _criterion(plan: Plan, structure: Structure, weights: Weights, reference: FloatRun | None) -> Criterion:
    if plan.criterion in NORMS:
        return Fixed(structure, weights, plan.criterion)
    assert reference is not None
    readers = {n for u in structure.units for n in u.readers}
    moments = {n: reference.moments(structure, n) for n in structure.linears if n in readers}
    if plan.criterion == "activation":
        return Fixed(structure, weights, "l2", {n: np.sqrt(np.diag(m.xx)) for n, m in moments.items()})
    return OutputError(structure, weights, moments, plan.ridge)


def _calibration(context: Context) -> Mapping[str, np.ndarray]:
    data = context.require_calibration("remove-neurons")
    if any(len(v) < 2 for v in data.values()):
        raise DataError(
            "a fit needs more than one sample", found="1 or none", allowed="a few hundred typical inputs"
        )
    return data


class _Again:
    """Chooses the units of a layer anew at its first reader, on what the reduced layers before produce.

    How many go, and which units of later layers will, is known from the first choice.
    """

    def __init__(
        self, plan: Plan, structure: Structure, weights: Weights, reference: FloatRun, first: list[Unit]
    ) -> None:
        self.plan, self.structure, self.weights, self.reference = plan, structure, weights, reference
        self.pending = structure.layers()
        self.first = first
        self.gone: list[Unit] = []

    def __call__(self, node: ir.Node, env: Environment) -> list[Unit]:
        """Units to remove now that ``node`` is about to read them."""
        ready: list[Layer] = [k for k, us in self.pending.items() if any(node in u.readers for u in us)]
        chosen = []
        for layer in ready:
            units = self.pending.pop(layer)
            chosen += self._choose(node, env, layer, units)
        return chosen

    def _choose(self, node: ir.Node, env: Environment, layer: Layer, units: list[Unit]) -> list[Unit]:
        wanted = [u for u in self.first if u.layer == layer]
        alone = len(wanted) == len(self.first)  # then the first choice knew all that there is to know
        if not wanted or alone or len({frozenset(u.readers) for u in units}) > 1:
            self.gone += wanted
            return wanted
        linear = self.structure.linears[node]
        moments = {n: self.reference.moments(self.structure, n) for n in units[0].readers}
        (moments[node],) = moments_of(
            linear, env[input_of(node)], self.reference.values[node.outputs[0]], self.reference.seed
        )
        criterion = OutputError(self.structure, self.weights, moments, self.plan.ridge)
        for unit in self.first:
            if unit.layer != layer:
                criterion.forget(unit)
        for unit in self.gone:
            criterion.remove(unit)
        goal = Goal(self.structure, RemovalTarget())
        for unit in self.gone:
            goal.remove(unit)
        goal.set(layer, len(wanted))
        found = choose(units, criterion, goal)
        self.gone += found
        return found
