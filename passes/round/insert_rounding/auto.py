"""``insert-rounding{bits=auto}``: the fewest bits for each table that keep the outputs within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ....analysis.cost.cost import work
from ....ir.level import TRAINED_KEY
from ...framework.base import Context
from .fill import Fill
from .memo import Memo
from .plain import Plain
from .raising import Loss, raise_layers
from .setting import Setting
from .whole import lower_layers, network_outputs

if TYPE_CHECKING:
    from .insert_rounding import InsertRounding

FEWEST, MOST, WIDEST = 2, 6, 8
"""Bits of the search: for all tables together, and for single ones where there are few bootstraps."""
LARGE = 2**34
"""Multiplications on the calibration data's way through a network, past which trying every setting takes too
long: as many samples as stay below it (no fewer than ``SAMPLES``) are tried, on ``TRIALS`` single layers (of
more than ``TABLES`` tables too)."""
SAMPLES, TRIALS, TABLES = 8, 8, 32


def choose(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    tables: Sequence[ir.Node],
    fixed: Mapping[ir.Node, int | None],
    options: InsertRounding,
    tolerance: tuple[float, float],
    context: Context,
) -> list[Setting]:
    """First one setting for all tables, then each layer, the dearest first, down while the tolerance allows.

    Where that leaves too much, or changes too many classes, single layers go up again as long as the circuit
    stays cheap (``raise_layers``), unless the user gave a limit.

    Args:
        model: Integer level; not changed.
        data: Calibration inputs.
        tables: Its TableLookup nodes.
        fixed: Bits that the user gave.
        options: The pass.
        tolerance: Mean squared error over the variance of the outputs: what is wanted, and what will do where
            that takes tables wider than is comfortable.
        context: For progress and notes, and the margin of ranges.

    Returns:
        A setting for each of ``tables``.
    """
    total = len(next(iter(data.values())))
    few = min(total, max(SAMPLES, LARGE // max(1, work(model))))
    large = few < total or len(tables) > TABLES
    if large:
        data = {name: array[:few] for name, array in data.items()}
    if large:
        context.notes.append(
            f"insert-rounding: in a network this large the bits of tables are chosen on {few} calibration"
            f" samples, and for at most {TRIALS} layers apart; bits=N saves the search"
        )
    plain, memo = Plain.of(model, data), Memo()
    loss = Loss.of(model, plain.outputs)
    # Integers that were trained are worth more bits than this would leave them.
    trained = model.metadata_props.get(TRAINED_KEY) == "true"
    if options.tolerance is None and loss.kind == "values" and not large and not trained:
        loss = replace(loss, network=network_outputs(context, data, plain.outputs))
    names = [t.name for t in tables]
    fills: tuple[Fill, ...] = ("free", "full") if options.fill == "free" else (options.fill,)
    most = MOST if options.most == "auto" else options.most
    ladder = [Setting(b, f) for b in range(FEWEST, max(most, WIDEST) + 1) for f in fills]
    usual = [p for p, setting in enumerate(ladder) if setting.bits <= most]
    steps, done = (len(usual) + len(tables), 0) if not large else (4 + min(TRIALS, len(tables)), 0)

    def rounded(places: Sequence[int]) -> ir.Model:
        nonlocal done
        context.progress("choose rounding", min(done, steps), steps)
        done += 1
        tried = model.clone()
        by_name = {n.name: n for n in tried.graph}
        options.round(
            tried,
            data,
            {by_name[n]: s for n, s in zip(names, settings(places), strict=True)},
            context,
            plain,
            memo,
        )
        return tried

    def error_of(places: Sequence[int]) -> float:
        return loss.error(rounded(places), data, context)

    def settings(places: Sequence[int]) -> list[Setting]:
        return [
            ladder[p] if (given := fixed[t]) is None else Setting(given, options.fill)
            for p, t in zip(places, tables, strict=True)
        ]

    wanted_error, allowed = tolerance
    known: dict[int, float] = {}

    def error_at(place: int) -> float:
        if place not in known:
            known[place] = error_of([place] * len(tables))
        return known[place]

    place = _first(usual, lambda p: error_at(p) <= wanted_error, large)
    if ladder[place].bits > context.limits.comfortable_table_bits and wanted_error < allowed:
        enough = _first(usual, lambda p: error_at(p) <= allowed, large)
        if enough < place:
            place, wanted_error = enough, allowed
    places = [place] * len(tables)
    if error_at(place) <= wanted_error:
        sizes = [
            int(np.prod([d for d in list(t.outputs[0].shape or [])[1:] if isinstance(d, int)]))
            for t in tables
        ]
        dearest = sorted(range(len(tables)), key=lambda i: -sizes[i])
        # Where all that is lost is known, that is what single layers go by.
        for index in [] if loss.network is not None else dearest[:TRIALS] if large else dearest:
            while fixed[tables[index]] is None and places[index] > 0:
                tried = [p - 1 if i == index else p for i, p in enumerate(places)]
                if error_of(tried) > wanted_error:
                    break
                places = tried
                if large:
                    break
        if loss.network is not None:
            free = [i for i in dearest if fixed[tables[i]] is None]
            places = lower_layers(places, free, rounded, lambda m: loss.total(m, data, context))
    missed = error_at(place) > wanted_error
    if options.most == "auto" and len(tables) <= TABLES:
        free = [i for i, t in enumerate(tables) if fixed[t] is None]
        raised = raise_layers(places, free, ladder, rounded, loss, wanted_error, data, context)
        missed, places = missed and raised == places, raised
    bits = ", ".join(str(s.bits) for s in settings(places))
    told = "; rounding and noise alone move the outputs by more than `tolerance` asks for" if missed else ""
    context.notes.append(f"insert-rounding: {bits} bits reach the tables{told}")
    return settings(places)


def _first(places: Sequence[int], fits: Callable[[int], bool], halving: bool) -> int:
    """The first place that fits, or the last; ``halving`` asks few, as if each next one fitted better."""
    if not halving:
        return next((p for p in places if fits(p)), places[-1])
    low, high = 0, len(places) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(places[middle]) else (middle + 1, high)
    return places[low]
