"""Two integer tensors that are added: a common scale at which float32 holds their sum."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...ir import intervals
from ...ir.errors import LimitError
from ...ir.graph import constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.interval_arithmetic import Bounds
from ...ir.intervals import interval_of
from ...ir.reaches import Reaches
from .coarser import Coarser
from .views import MAX_DENOMINATOR, MAX_MULTIPLIER_ERROR, RATIO_TOLERANCE, Common, View, common_unit, rank_of

ROOM = intervals.LARGEST_FLOAT32_INTEGER / 32
"""Sums that stay below this are left as they are; what is rounded later grows by a few bits."""
AIM = intervals.LARGEST_FLOAT32_INTEGER / 64
"""What either tensor reaches at most, times its multiplier, where their sum would not be exact."""
NEGLIGIBLE_STEP_SHARE = 0.5
"""A tensor that never reaches this part of one step of a far coarser tensor is left out of their sum."""


class CommonScales:
    """Finds the common scale of two tensors that are added.

    Whole multiples of both may not fit where one is finer than the other by far. The finer one is then
    computed with coarser integer weights, one factor for each channel: it loses less than the coarser one has
    lost already, and a second linear operator costs nothing. Whoever else reads the finer tensor keeps it.

    Args:
        edit: Makes the coarser copies.
    """

    def __init__(self, edit: IntegerEditor) -> None:
        self.coarser = Coarser(edit)
        self._ranges: dict[ir.Value, Bounds] = {}
        self._declared: dict[ir.Value, float] = {}
        self._levels: dict[ir.Value, float] = {}
        self._elements = Reaches(self._ranges, edit.model.graph.opset_imports.get("", 21))
        self._reaches: dict[ir.Value, np.ndarray | None] = {}

    def declare(self, integers: ir.Value, low: float, high: float) -> None:
        """Say what an activation's integers reach."""
        self._ranges[integers] = (float(low), float(high))
        self._declared[integers] = max(abs(float(low)), abs(float(high)))

    def of(self, first: View, second: View) -> tuple[View, View, Common]:
        """Both views, coarser where they have to be, and the unit in which they are whole multiples."""
        plain = common_unit(first.scale, second.scale)
        reach = self._reach(first.integers), self._reach(second.integers)
        if reach[0] is None or reach[1] is None:
            return first, second, plain
        crowded = bool(np.any(np.abs(plain.a) * reach[0] + np.abs(plain.b) * reach[1] >= ROOM))
        x, y = np.abs(first.scale).astype(np.float64), np.abs(second.scale).astype(np.float64)
        x, y, reach_a, reach_b = np.broadcast_arrays(x, y, reach[0], reach[1])
        # Zeros are zeros in any unit: the other tensor keeps its own.
        no_a = (reach_a == 0) & (np.abs(plain.b) != 1)
        no_b = (reach_b == 0) & (np.abs(plain.a) != 1) & ~no_a
        over = crowded & ~(no_a | no_b)
        a, b, coarser_a, coarser_b = made = np.ones((4, *x.shape))
        for i in np.flatnonzero(over):
            made.reshape(4, -1)[:, i] = _fitting(x.flat[i] / y.flat[i], reach_a.flat[i], reach_b.flat[i])
        left, right = self._coarser_view(first, coarser_a), self._coarser_view(second, coarser_b)
        if left is None or right is None:
            # An input or an activation has no weights to make coarser. It may be too small to count.
            left, right = first, second
            a, b = np.where(over, np.abs(plain.a), a), np.where(over, np.abs(plain.b), b)
            tiny_a, tiny_b = (
                over & (reach_a * x < NEGLIGIBLE_STEP_SHARE * y),
                over & (reach_b * y < NEGLIGIBLE_STEP_SHARE * x),
            )
            a = np.where(tiny_a, 0.0, np.where(tiny_b, 1.0, a))
            b = np.where(tiny_b, 0.0, np.where(tiny_a, 1.0, b))
            no_a, no_b, over = no_a | tiny_a, no_b | tiny_b, over & False
            crowded = False
        settled = no_a | no_b | over
        unit = np.where(no_a, y, np.where(no_b, x, x * coarser_a / np.maximum(a, 1)))
        common = replace(
            plain,
            a=np.where(settled, np.sign(first.scale) * a, plain.a),
            b=np.where(settled, np.sign(second.scale) * b, plain.b),
            scale=np.where(settled, unit, plain.scale),
            error=0.0 if crowded else plain.error,
        )
        return left, right, common

    def levels(self, value: ir.Value) -> float:
        """The largest absolute integer of any activation that an integer tensor is made of."""
        if value not in self._levels:
            made, declared = value.producer(), self._declared.get(value)
            read = [] if made is None or declared is not None else variable_inputs(made)
            self._levels[value] = max([declared or 1.0, *(self.levels(v) for v in read)])
        return self._levels[value]

    def largest(self, view: View) -> float:
        """The largest that an element is in units of the largest scale; 1 where nothing is known."""
        reach, scale = self._elements.of(view.integers), np.abs(view.scale)
        return 1.0 if reach is None else max(1.0, float((reach * (scale / scale.max())).max()))

    def _reach(self, value: ir.Value) -> np.ndarray | None:
        """The largest absolute value of an integer tensor, of each channel; None where nothing is known."""
        if value not in self._reaches:
            self._reaches[value] = self._reach_anew(value)
        return self._reaches[value]

    def _reach_anew(self, value: ir.Value) -> np.ndarray | None:
        whole, node = self._range(value), value.producer()
        if whole is None or node is None:
            return None
        if node.op_type in ("Add", "Sub", "Mul") and node.domain == "":
            first, second = (self._extent(v) for v in node.inputs)
            if first is not None and second is not None:
                return np.asarray(first * second if node.op_type == "Mul" else first + second)
        linear, data = linear_of(node), self._ranges.get(node.inputs[0]) if node.inputs else None  # type: ignore[arg-type]
        if linear is not None and data is not None:
            sums = np.abs(linear.matrix()).sum(axis=1) * max(abs(end) for end in data)
            return linear.along_channels(sums, rank_of(value))
        return np.full([1] * rank_of(value), max(abs(end) for end in whole))

    def _extent(self, value: ir.Value | None) -> np.ndarray | None:
        constant = constant_of(value)
        if constant is not None:
            return np.abs(constant.astype(np.float64))
        return None if value is None else self._reach(value)

    def _range(self, value: ir.Value) -> Bounds | None:
        """Bounds of a whole tensor; None where nothing is known, or float32 would not hold them."""
        producer = value.producer()
        if value not in self._ranges and producer is not None:
            for source in producer.inputs:
                if source is not None and constant_of(source) is None:
                    self._range(source)
            with suppress(LimitError):
                found = interval_of(producer, self._ranges)
                if found is not None:
                    self._ranges[value] = found
        return self._ranges.get(value)

    def _coarser_view(self, view: View, factor: np.ndarray) -> View | None:
        if np.all(factor == 1):
            return view
        made = self.coarser(view.integers, factor)
        return None if made is None else View(made, view.scale * factor, view.offset)


def _fitting(ratio: float, reach_a: float, reach_b: float) -> tuple[float, float, float, float]:
    """Multipliers of two tensors and what each is made coarser by; ``ratio`` is that of their scales.

    The coarser tensor stays as it is. The multipliers are those that make the finer one the least coarser,
    and let each channel reach what is aimed at, for a table that reads them all has steps of one size.
    """
    if ratio < 1:
        b, a, coarser_b, coarser_a = _fitting(1 / ratio, reach_b, reach_a)
        return a, b, coarser_a, coarser_b
    most_a, most_b = (max(1.0, AIM // max(reach, 1.0)) for reach in (reach_a, reach_b))
    many = np.arange(1, min(most_b, MAX_DENOMINATOR) + 1)
    few = np.minimum(np.floor(ratio * many * (1 + RATIO_TOLERANCE)), most_a)
    coarser = ratio * many / few
    best = int(np.argmax(coarser <= coarser.min() * (1 + MAX_MULTIPLIER_ERROR)))
    a, b = float(few[best]), float(many[best])
    more = max(1.0, AIM // max(a * reach_a, b * reach_b, 1.0))
    return more * a, more * b, 1.0, max(1.0, float(coarser[best]))
