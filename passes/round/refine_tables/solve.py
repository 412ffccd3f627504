"""Coordinate descent over the tables of one layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.editing import GraphEditor
from ....ir.interval_arithmetic import Interval
from ....ir.ops import TableLookup
from .reading import Problem
from .smooth import interpolated, isotonic


@dataclass(frozen=True)
class Entries:
    """The entries of a TableLookup, a row for each channel.

    Attributes:
        lookup: The TableLookup.
        table: (channels, size) integers.
        cells: (samples, elements) which entry each input selects.
        channel: (elements) the channel of each element.
        low, high: (channels) smallest and largest integer that an entry may become.
        prior: Weight of the entry that there was, in samples.
    """

    lookup: TableLookup
    table: np.ndarray
    cells: np.ndarray
    channel: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prior: float

    @staticmethod
    def of(lookup: TableLookup, inputs: np.ndarray, prior: float, bounds: Interval | None) -> Entries:
        """The entries of a lookup.

        Args:
            lookup: The lookup.
            inputs: (samples, elements) integers that enter it.
            prior: Weight of the entry that there was.
            bounds: Sound bounds of what each element puts out, which have to stay sound; None where an entry
                may become whatever another entry is.
        """
        table = lookup.entries.astype(np.float64)
        shape = [int(d) if isinstance(d, int) else 1 for d in list(lookup.output.shape or [])[1:]]
        channel = lookup.channel_of_elements([1, *shape]).reshape(-1)
        cells = (inputs - lookup.first[channel]) // lookup.step
        cells = np.clip(cells, 0, table.shape[1] - 1).astype(np.int64)
        low, high = np.full(len(table), table.min()), np.full(len(table), table.max())
        if bounds is not None:
            for element, bottom, top in zip(
                channel, bounds[0].reshape(-1), bounds[1].reshape(-1), strict=True
            ):
                low[element], high[element] = max(low[element], bottom), min(high[element], top)
        return Entries(lookup, table, cells, channel, low, np.maximum(low, high), prior)

    def write(self, model: ir.Model, table: np.ndarray) -> None:
        """Give the lookup another table."""
        first = self.lookup.node.inputs[2]
        assert first is not None
        value = GraphEditor(model).constant(f"{self.lookup.name}_refined", table.astype(np.float32))
        self.lookup.set_tables(value, first)


@dataclass(frozen=True)
class Result:
    """A table (channels, size), and the error that it leaves (as ``Problem.error``)."""

    table: np.ndarray
    error: float


def descend(entries: Entries, problem: Problem, sweeps: int, seed: int) -> Result:
    """Fit the tables, one channel after the other, to what the readings still miss.

    For one channel the error is bounded by a parabola around what it puts out now, whose curvature is the
    largest eigenvalue of its readings' Gram matrix: exact where the channel is one element, a majorizer where
    it is many. The best entry is the mean of the parabola's minima over the samples that select it, rounded.

    Args:
        entries: The tables as they are.
        problem: What they should mend.
        sweeps: Turns of every channel.
        seed: Seed of the order of the channels.
    """
    table, residual = entries.table.copy(), problem.residual.copy()
    outputs = problem.outputs.astype(np.float32).copy()
    scale = problem.scale * len(residual)
    error = float((residual.astype(np.float64) ** 2).sum())
    smooth = np.stack([interpolated(row) for row in table])
    for sweep in range(sweeps):
        before = error
        for channel in np.random.default_rng(seed + sweep).permutation(len(table)):
            places = np.flatnonzero(entries.channel == channel)
            weights = problem.matrix[places]
            curvature = float(np.linalg.eigvalsh(weights @ weights.T)[-1]) if len(places) else 0.0
            if curvature <= 0:
                continue
            wanted = outputs[:, places] + residual @ weights.T / curvature
            row = _row(entries, int(channel), entries.cells[:, places], wanted, smooth[channel])
            change = row[entries.cells[:, places]] - outputs[:, places]
            if not np.any(change):
                continue
            moved = residual - change @ weights
            now = float((moved.astype(np.float64) ** 2).sum())
            if now < error:
                table[channel], residual, error = row, moved, now
                outputs[:, places] += change
        if error > before * 0.999:
            break
    return Result(table, error / scale)


def _row(
    entries: Entries, channel: int, cells: np.ndarray, wanted: np.ndarray, smooth: np.ndarray
) -> np.ndarray:
    """The entries of one channel that come nearest to ``wanted`` (samples, places)."""
    size, old = len(smooth), entries.table[channel]
    count = np.bincount(cells.reshape(-1), minlength=size)
    total = np.bincount(cells.reshape(-1), wanted.reshape(-1).astype(np.float64), minlength=size)
    weight = count + max(entries.prior, 1e-6)
    mean = (total + (weight - count) * smooth) / weight
    steps = np.diff(old)
    if np.all(steps >= 0):
        mean = isotonic(mean, weight)
    elif np.all(steps <= 0):
        mean = -isotonic(-mean, weight)
    return np.asarray(np.clip(np.rint(mean), entries.low[channel], entries.high[channel]), np.float32)
