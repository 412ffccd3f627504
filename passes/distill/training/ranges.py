"""Where the lattices of a student lie: the same rule as ``insert-rounding`` uses on the finished network."""

from __future__ import annotations

import numpy as np
import torch

from ....analysis.ranges.margins import TARGET_OVERFLOW_RATE, widened
from ....analysis.ranges.tails import Extremes
from ...framework.base import Context
from ...round.insert_rounding.fill import CHEAP_NORM, CHEAP_NORM_FALL, gains_within
from ...round.insert_rounding.lattice import width_for
from .student import Student
from .table import Table

KEPT_LATTICE_SHARE = 0.78
"""A lattice stays as it is while the range fills at least this share of it."""
NEW_LATTICE_FACTOR = 1.06
"""How many times the range a new lattice holds, so that it needs no change at once."""


class Ranges:
    """Sets the lattices of a student from what calibration data shows.

    Args:
        student: The student.
        data: Calibration inputs, without augmentation.
        context: Range margin.
    """

    def __init__(self, student: Student, data: list[torch.Tensor], context: Context) -> None:
        self.student, self.data = student, data
        self.margin = context.ranges.margin
        self.target = TARGET_OVERFLOW_RATE / (1 + len(student.tables))

    @torch.no_grad()
    def refresh(self, keep: bool = False) -> None:
        """Look at the accumulators again and move lattices that have become too small, or far too large.

        Args:
            keep: Leave lattices that hold their range, however large.
        """
        student = self.student
        if not student.tables:
            return
        student.capture = True
        noisy = [t.lattice.noisy for t in student.tables]
        for table in student.tables:
            table.lattice.noisy = False
        student(self.data)
        student.capture = False
        for table, was in zip(student.tables, noisy, strict=True):
            table.lattice.noisy = was
            self._place(table, student.captured[table.base], keep)
        student.captured.clear()

    def _place(self, table: Table, z: torch.Tensor, keep: bool) -> None:
        lattice = table.lattice
        accumulator = ((z - self.student.shift(table)) / self.student.unit(table)).numpy()
        axis = lattice.axis
        seen = Extremes.of(accumulator.astype(np.float64), [axis])
        bounds = widened(seen, self.margin, self.target, 2**lattice.bits, whole=table.linear is not None)
        low, high = (b.reshape(-1) for b in bounds)
        shape = [-1 if i == axis else 1 for i in range(accumulator.ndim)]
        points = 2**lattice.bits
        if lattice.ratio.ndim:
            ratio, origin = (t.reshape(-1).numpy() for t in (lattice.ratio, lattice.origin))
            share = (high - low) / (ratio * (points - 1))
            below, above = origin - ratio / 2, origin + ratio * (points - 0.5)
            if np.all((low >= below) & (high <= above)) and (keep or share.min() > KEPT_LATTICE_SHARE):
                return
        if table.linear is None:
            ratio = (high - low) * NEW_LATTICE_FACTOR / (points - 1.5)
            origin = (low + high) / 2 - ratio * (points - 1) / 2
        else:
            ratio, origin = _whole(low, high, lattice.bits, _room(table))
        lattice.ratio = torch.tensor(ratio.reshape(shape), dtype=torch.float32)
        lattice.origin = torch.tensor(origin.reshape(shape), dtype=torch.float32)


def _room(table: Table) -> np.ndarray:
    """How far channels may be multiplied until bootstraps cost more; fresh inputs bear any factor."""
    weight, linear = table.weight, table.linear
    assert linear is not None
    channels = linear.channels
    if weight is None or table.activation is None or table.fresh:
        return np.full(channels, np.inf)
    norms = weight.codes().detach().movedim(weight.axis, 0).flatten(1).double().norm(dim=1).numpy()
    cheap = CHEAP_NORM / CHEAP_NORM_FALL ** (table.lattice.bits - 4)
    return np.asarray(cheap / np.maximum(norms, 1e-9) if norms.max() <= cheap else np.full(channels, np.inf))


def _whole(low: np.ndarray, high: np.ndarray, bits: int, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (of the accumulator) and origins (channels) that offsets and whole gains can make."""
    spans = np.maximum((high - low) * NEW_LATTICE_FACTOR, 1.0)
    width = width_for(int(np.ceil(spans.max())), bits)
    width, gains = gains_within(np.ceil(spans), width, room)
    ratio = 2.0**width.removed / gains
    # The free part of the range is shared out on both sides.
    slack = width.top - (high - low) * gains
    return ratio, low - slack / 2 / gains
