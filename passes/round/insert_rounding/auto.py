"""``insert-rounding{bits=auto}``: the fewest bits for each table that keep the outputs within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ....analysis.cost.cost import work
from ...framework.base import Context
from .fill import Fill
from .memo import Memo
from .raising import Loss, raise_layers
from .rounding import Rounding
from .rounding_setting import RoundingSetting
from .unrounded_reference import UnroundedReference
from .whole import lower_layers, network_outputs

MIN_BITS = 2
"""Fewest bits that reach a table."""
MAX_COMMON_BITS = 6
"""Most bits of the search for all tables together."""
MAX_RAISED_BITS = 8
"""Most bits of single tables, where there are few bootstraps."""
MAX_TRIED_PRODUCTS = 2**34
"""Multiplications of the network on the calibration data past which trying every setting takes too long: then
as many samples as stay below it are tried."""
MIN_TRIED_SAMPLES = 8
"""Samples that are tried however large the network is."""
MAX_TRIED_LAYERS = 8
"""Layers of a large network that are tried apart."""
MAX_TRIED_TABLES = 32
"""Tables past which a network counts as large, too."""


@dataclass(frozen=True)
class RoundingProblem:
    """The tables that settings are looked for, and what the settings may cost.

    Attributes:
        model: Integer level; not changed.
        data: Calibration inputs.
        tables: Its TableLookup nodes.
        fixed: For each of them the bits that the user gave, or None.
        rounding: What all tables have in common.
        fill: Whether channels may be multiplied to fill the range.
        max_bits: Most bits that the user allows; None for what the search finds worth it.
        limits: Mean squared error over the variance of the outputs: what is wanted, and what will do where
            that takes tables wider than is comfortable.
        judges_all_loss: Whether a network of values is judged by all that it loses against the imported one,
            and not by what rounding adds alone.
    """

    model: ir.Model
    data: Mapping[str, np.ndarray]
    tables: Sequence[ir.Node]
    fixed: Mapping[ir.Node, int | None]
    rounding: Rounding
    fill: Fill
    max_bits: int | None
    limits: tuple[float, float]
    judges_all_loss: bool


def choose(problem: RoundingProblem, context: Context) -> list[RoundingSetting]:
    """First one setting for all tables, then each layer, the largest first, down while the tolerance allows.

    Where that leaves too much, or changes too many classes, single layers go up again as long as the circuit
    stays cheap (``raise_layers``), unless the user gave a limit.

    Args:
        problem: What is to be rounded, and what that may cost.
        context: For progress and notes, and the margin of ranges.

    Returns:
        A setting for each of the problem's tables.
    """
    search = _Search(problem, context)
    place, tolerance = search.common_place()
    places, missed = [place] * len(problem.tables), search.error_at(place) > tolerance
    if not missed:
        places = search.lowered(places, tolerance)
    if problem.max_bits is None and len(problem.tables) <= MAX_TRIED_TABLES:
        raised = search.raised(places, tolerance)
        missed, places = missed and raised == places, raised
    settings = search.settings(places)
    bits = ", ".join(str(s.bits) for s in settings)
    told = "; rounding and noise alone move the outputs by more than `tolerance` asks for" if missed else ""
    context.notes.append(f"insert-rounding: {bits} bits reach the tables{told}")
    return settings


class _Search:
    """The steps of the search. A *place* is that of a setting in the list of all settings, by their price.

    Attributes:
        large: Whether there is so much to compute that only few trials are made.
        data: The calibration inputs that are tried.
        settings_by_price: All settings in order of their price.
        usual: Places on it that all tables together may have.
        largest_first: Tables by index, those with the most elements first.
    """

    def __init__(self, problem: RoundingProblem, context: Context) -> None:
        self.problem, self.context = problem, context
        self.data, self.large = self._tried_data()
        self.plain, self.memo = UnroundedReference.of(problem.model, self.data), Memo()
        self.loss = self._loss()
        fills: tuple[Fill, ...] = ("free", "full") if problem.fill == "free" else (problem.fill,)
        most = MAX_COMMON_BITS if problem.max_bits is None else problem.max_bits
        self.settings_by_price = [
            RoundingSetting(b, f) for b in range(MIN_BITS, max(most, MAX_RAISED_BITS) + 1) for f in fills
        ]
        self.usual = [p for p, setting in enumerate(self.settings_by_price) if setting.bits <= most]
        sizes = [_elements(t.outputs[0]) for t in problem.tables]
        self.largest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        count = len(problem.tables)
        self._steps = 4 + min(MAX_TRIED_LAYERS, count) if self.large else len(self.usual) + count
        self._done = 0
        self._known: dict[int, float] = {}

    def _tried_data(self) -> tuple[Mapping[str, np.ndarray], bool]:
        """The samples that trials run on, and whether the network is so large that there are few of them."""
        data = self.problem.data
        total = len(next(iter(data.values())))
        few = min(total, max(MIN_TRIED_SAMPLES, MAX_TRIED_PRODUCTS // max(1, work(self.problem.model))))
        if few == total and len(self.problem.tables) <= MAX_TRIED_TABLES:
            return data, False
        self.context.notes.append(
            f"insert-rounding: in a network this large the bits of tables are chosen on {few} calibration"
            f" samples, and for at most {MAX_TRIED_LAYERS} layers apart; bits=N saves the search"
        )
        return {name: array[:few] for name, array in data.items()}, True

    def _loss(self) -> Loss:
        """What a trial is judged by."""
        loss = Loss.of(self.problem.model, self.plain.outputs)
        if self.problem.judges_all_loss and loss.kind == "values" and not self.large:
            return replace(loss, network=network_outputs(self.context, self.data, self.plain.outputs))
        return loss

    def settings(self, places: Sequence[int]) -> list[RoundingSetting]:
        """The setting of each table at given places; what the user fixed stays."""
        problem = self.problem
        return [
            self.settings_by_price[p]
            if (given := problem.fixed[t]) is None
            else RoundingSetting(given, problem.fill)
            for p, t in zip(places, problem.tables, strict=True)
        ]

    def rounded(self, places: Sequence[int]) -> ir.Model:
        """A copy of the model, rounded at given places."""
        self.context.progress("choose rounding", min(self._done, self._steps), self._steps)
        self._done += 1
        tried = self.problem.model.clone()
        by_name = {n.name: n for n in tried.graph}
        tables = [by_name[t.name] for t in self.problem.tables]
        settings = dict(zip(tables, self.settings(places), strict=True))
        self.problem.rounding.apply(tried, self.data, settings, self.context, self.plain, self.memo)
        return tried

    def error(self, places: Sequence[int]) -> float:
        """What the model at given places loses."""
        return self.loss.error(self.rounded(places), self.data, self.context)

    def error_at(self, place: int) -> float:
        """What is lost where all tables have one place."""
        if place not in self._known:
            self._known[place] = self.error([place] * len(self.problem.tables))
        return self._known[place]

    def common_place(self) -> tuple[int, float]:
        """The first place that will do for all tables together, and the tolerance that it keeps to."""
        wanted, enough = self.problem.limits
        place = _first(self.usual, lambda p: self.error_at(p) <= wanted, self.large)
        if (
            self.settings_by_price[place].bits > self.context.target.limits.comfortable_table_bits
            and wanted < enough
        ):
            cheaper = _first(self.usual, lambda p: self.error_at(p) <= enough, self.large)
            if cheaper < place:
                return cheaper, enough
        return place, wanted

    def lowered(self, places: list[int], tolerance: float) -> list[int]:
        """Single layers down, the largest first, while the tolerance allows."""
        free = [i for i in self.largest_first if self.problem.fixed[self.problem.tables[i]] is None]
        if self.loss.network is not None:  # where all that is lost is known, layers go by that alone
            return lower_layers(
                places, free, self.rounded, lambda m: self.loss.total(m, self.data, self.context)
            )
        tried_layers = set(self.largest_first[:MAX_TRIED_LAYERS] if self.large else self.largest_first)
        for index in [i for i in free if i in tried_layers]:
            while places[index] > 0:
                tried = [p - 1 if i == index else p for i, p in enumerate(places)]
                if self.error(tried) > tolerance:
                    break
                places = tried
                if self.large:
                    break
        return places

    def raised(self, places: list[int], tolerance: float) -> list[int]:
        """Single layers up, where that is worth its price."""
        tables, fixed = self.problem.tables, self.problem.fixed
        free = [i for i, t in enumerate(tables) if fixed[t] is None]
        return raise_layers(
            places, free, self.settings_by_price, self.rounded, self.loss, tolerance, self.data, self.context
        )


def _elements(value: ir.Value) -> int:
    """Elements of a tensor for one sample, of the axes that are known."""
    return int(np.prod([d for d in list(value.shape or [])[1:] if isinstance(d, int)]))


def _first(places: Sequence[int], fits: Callable[[int], bool], halving: bool) -> int:
    """The first place that fits, or the last; ``halving`` asks few, as if each next one fitted better."""
    if not halving:
        return next((p for p in places if fits(p)), places[-1])
    low, high = 0, len(places) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(places[middle]) else (middle + 1, high)
    return places[low]
