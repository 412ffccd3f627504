"""The layers of a circuit with all that is known about each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..analysis.ranges.ranges import SoundRanges
from ..analysis.regions.linear import linear_of
from ..backends.statistics import LayerStatistics
from ..ir.errors import OnnxFheError
from ..ir.graph import MAXIMA, constant_of, title_of
from ..ir.ops import TableLookup
from ..manifest import Manifest
from ..record import Headroom
from .measuring import share
from .pricing import Pricing

LAYER_COLOURS = 8
"""Colours that the page has for layers; they repeat."""
MAX_SOUND_WEIGHTS = 5_000_000
"""Weights past which sound ranges are not computed for a report."""


@dataclass(frozen=True)
class Range:
    """The range that a table declares, from 0 to 1, and in these units what was seen and what is possible.

    Attributes:
        table: Name of the table.
        layer: Index of its layer.
        observed: On the calibration data; None if not recorded.
        sound: For any input; None if not computed.
    """

    table: str
    layer: int
    observed: tuple[float, float] | None
    sound: tuple[float, float] | None

    @property
    def is_safe(self) -> bool:
        """Whether no input can overflow."""
        return self.sound is not None and self.sound[0] >= -1e-9 and self.sound[1] <= 1 + 1e-9


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        index: Its place, from 0.
        name, operator: As in the statistics.
        colour: Index of its colour.
        accumulator_bits, table_bits, bootstraps: As in the statistics.
        weight_bits: Bits of its integer weights; None without.
        channels: Neurons or channels; None if not known.
        lookups: Tables that are looked up; exact rounding takes more bootstraps than these.
        seconds: Predicted on one core.
        share: Share of the whole circuit's time.
        costs: Indices of its tables in ``Pricing.costs``.
        divergence: Divergence of its outputs from the network's; None if not known.
        exact: Whether its accumulator is rounded exactly, one bootstrap a bit.
        is_maximum: Whether it takes maxima or minima.
    """

    index: int
    name: str
    operator: str
    colour: int
    accumulator_bits: int
    table_bits: int
    bootstraps: int
    weight_bits: int | None
    channels: int | None
    lookups: int
    seconds: float
    share: float
    costs: tuple[int, ...]
    divergence: float | None
    exact: bool
    is_maximum: bool


def layers_of(model: ir.Model, manifest: Manifest, pricing: Pricing) -> tuple[Layer, ...]:
    """The layers of an integer-level model, in order."""
    costs: dict[str, list[int]] = defaultdict(list)
    for index, cost in enumerate(pricing.costs):
        costs[cost.name].append(index)
    found = {s.name: s for s in manifest.statistics.layers}
    divergences = (
        {x.name: x.divergence for x in manifest.record.measured.layers}
        if manifest.record is not None and manifest.record.measured is not None
        else {}
    )
    tables: dict[str, list[TableLookup]] = defaultdict(list)
    for lookup in TableLookup.all_in(model):
        tables[lookup.title[0]].append(lookup)
    seconds = pricing.times()
    times = {n: sum(seconds[i] for i in costs[n]) for n in found}
    total = sum(times.values())
    return tuple(
        _layer(i, s, model, costs[s.name], tables[s.name], times[s.name], total, divergences.get(s.name))
        for i, s in enumerate(found.values())
    )


def _layer(
    index: int,
    found: LayerStatistics,
    model: ir.Model,
    costs: Sequence[int],
    tables: list[TableLookup],
    time: float,
    total: float,
    divergence: float | None,
) -> Layer:
    node = next((n for n in model.graph if title_of(n)[0] == found.name and linear_of(n) is not None), None)
    constants = [] if node is None else [c for v in node.inputs if (c := constant_of(v)) is not None]
    # Gemm has transB=1 at this level, so that its outputs come first as a convolution's do.
    axis = -1 if node is not None and node.op_type == "MatMul" else 0
    count = sum(_elements(x.node.outputs[0]) for x in tables)
    output = None if node is None or node.outputs[0].shape is None else list(node.outputs[0].shape)
    channels = output[1] if output is not None and len(output) > 1 else None
    return Layer(
        index=index,
        name=found.name,
        operator=found.operator,
        colour=index % LAYER_COLOURS,
        accumulator_bits=found.accumulator_bits,
        table_bits=found.table_bits,
        bootstraps=found.programmable_bootstraps,
        weight_bits=_bits(constants[0] if constants else None, axis),
        channels=channels if isinstance(channels, int) else None,
        lookups=count,
        seconds=time,
        share=time / total if total else 0.0,
        costs=tuple(costs),
        divergence=divergence,
        exact=any(x.is_rounded_exactly for x in tables),
        is_maximum=found.operator.rsplit(".", 1)[-1] in MAXIMA,
    )


def ranges_of(model: ir.Model, manifest: Manifest, layers: tuple[Layer, ...]) -> tuple[Range, ...]:
    """What every table declares, saw and can see."""
    measured = manifest.record.measured if manifest.record is not None else None
    seen = {} if measured is None else {x.table: x for x in measured.tables}
    places = {x.name: x.index for x in layers}
    possible = _sound(model)
    return tuple(
        Range(
            x.name,
            places.get(x.title[0], 0),
            _pair(seen.get(x.name)),
            _pair(possible.get(x.name)),
        )
        for x in TableLookup.all_in(model)
    )


def _sound(model: ir.Model) -> dict[str, Headroom]:
    size = sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None)
    if size > MAX_SOUND_WEIGHTS:
        return {}
    ranges, found = SoundRanges(model), {}
    for lookup in TableLookup.all_in(model):
        try:
            bounds = ranges.of(lookup.source)
        except (KeyError, OnnxFheError):
            # An operator of a plug-in without a rule: unknown is shown as unknown.
            continue
        found[str(lookup.node.name or "")] = share(lookup, bounds)
    return found


def _pair(found: Headroom | None) -> tuple[float, float] | None:
    return None if found is None else (found.low, found.high)


def _bits(weights: np.ndarray | None, axis: int) -> int | None:
    """Bits of symmetric weights: -3 to 3 are 3 bits. Gains that stretch whole channels do not count."""
    if weights is None or not weights.size or weights.ndim < 2:
        return None
    rows = np.rint(np.moveaxis(np.abs(weights), axis, 0).reshape(weights.shape[axis], -1)).astype(np.int64)
    units = np.maximum(1, np.gcd.reduce(rows, axis=1))
    return 1 + max(1, int((rows.max(axis=1) // units).max()).bit_length())


def _elements(value: ir.Value) -> int:
    return math.prod(d for d in list(value.shape or [])[1:] if isinstance(d, int))
