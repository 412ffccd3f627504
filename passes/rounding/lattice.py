"""Where the lattice of a rounded table lies and what stands in it (LOWERING, steps 4, 5 and 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PHASES, FEWER = 32, 8
"""Offsets that are tried for each channel: as a rule, and where there are very many channels."""
BETTER = 0.9
"""A smaller gain has to bring the error down to this share."""
PRIOR = 0.25
"""How many observations the unrounded table counts for at each of its inputs."""
FLOOR = 0.05
"""Share of the weight that is spread evenly over the range, for inputs that calibration did not show."""


@dataclass(frozen=True)
class Width:
    """Bits of an accumulator in front of a rounded table.

    Attributes:
        bits: L, the accumulator's width.
        removed: t, the least significant bits that rounding removes; 0 for none.
    """

    bits: int
    removed: int

    @property
    def top(self) -> int:
        """Largest accumulator that cannot leave L bits when it is rounded up."""
        return (1 << self.bits) - 1 - (1 << self.removed >> 1 if self.removed else 0)


def width_for(span: int, table_bits: int) -> Width:
    """The narrowest accumulator that holds ``span + 1`` values in the safe range.

    Args:
        span: Largest minus smallest value, of the widest channel.
        table_bits: P, bits that are left for the table.
    """
    if span <= 2**table_bits - 1:
        return Width(table_bits, 0)
    removed = 1
    while Width(table_bits + removed, removed).top < span:
        removed += 1
    return Width(table_bits + removed, removed)


@dataclass(frozen=True)
class Channel:
    """What is known about one channel's table.

    Attributes:
        low, high: Declared range of the accumulator.
        first: Input of the unrounded table's entry 0.
        table: (size) entries of the unrounded table.
        inputs: Observed accumulators, as the layers before (rounded already) produce them.
        targets: The entry that each of them had without any rounding.
        step: Neighbouring accumulators that have one entry: more than 1 in a coarse table.
    """

    low: int
    high: int
    first: int
    table: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    step: int = 1

    @cached_property
    def differences(self) -> np.ndarray:
        """By how much the wanted entries differ from what the unrounded table has at the observations."""
        return np.asarray(self.targets - _at(self, self.inputs))


@dataclass(frozen=True)
class Placed:
    """A channel on its lattice.

    Attributes:
        offset: Added to the accumulator before rounding.
        table: (2^P) entries.
        error: Mean squared error against the unrounded table.
        gain: What the accumulator is multiplied with first.
    """

    offset: int
    table: np.ndarray
    error: float
    gain: int = 1


def place_within(
    channel: Channel, width: Width, most: int, noise: float = 0.0, rough: bool = False
) -> Placed:
    """``place`` with the best gain of at most ``most``.

    The largest one sees most steps. A smaller one is better where the table has steps of its own, as that of
    a network that was trained with its rounding: then the lattices fall on one another.

    Args:
        channel, width, noise: As for ``place``.
        most: The largest gain.
        rough: Try fewer offsets, and that gain only.
    """
    if rough:
        return place(channel, width, most, noise, FEWER)
    best = place(channel, width, most, noise)
    for gain in range(most - 1, max(0, (most - 1) // 2), -1):
        tried = place(channel, width, gain, noise)
        if tried.error < BETTER * best.error:
            best = tried
    return best


def place(channel: Channel, width: Width, gain: int = 1, noise: float = 0.0, phases: int = PHASES) -> Placed:
    """Choose the offset whose lattice loses least, and fill the table.

    An entry is the weighted mean of what the unrounded network has at the accumulators that fall on it.

    Args:
        channel: The channel.
        width: The layer's width.
        gain: Whole number that the accumulator is multiplied with before offset and rounding.
        noise: Standard deviation of the noise that approximate rounding adds first, in steps of the table.
        phases: Offsets to try.
    """
    step = 2**width.removed
    # Phases and observations live on cells of 1/phases of a step: no finer than matters, however wide L is.
    cell = max(1, step // phases // gain)
    seen = _observe(channel, cell)
    x = np.clip((seen.centre * gain).astype(np.int64), channel.low * gain, channel.high * gain)
    slack = max(0, width.top - (channel.high - channel.low) * gain)
    reach = min(slack, step - 1) if width.removed else 0
    starts = np.unique(np.linspace(0, reach, min(phases, reach + 1)).round().astype(int))
    # Where the range is not filled, the free part is shared out on both sides: what exceeds it then still
    # fits.
    base = (slack - reach) // 2 - channel.low * gain
    tables, errors = _fill(x + (base + starts)[:, None], seen, width, noise)
    best = int(np.argmin(errors))
    return Placed(int(base + starts[best]), tables[best], float(errors[best]), gain)


@dataclass(frozen=True)
class _Seen:
    """What calibration shows of one channel, on cells of its range: centre, weight, wanted entry of each."""

    centre: np.ndarray
    weight: np.ndarray
    wanted: np.ndarray


def _observe(channel: Channel, cell: int) -> _Seen:
    """Weight and wanted entry of every cell of the range, smoothed over its neighbours."""
    span = channel.high - channel.low
    size = span // cell + 1
    centre = np.minimum(channel.low + np.arange(size) * cell + (cell - 1) / 2, channel.high)
    known = _at(channel, centre)
    place_of = np.clip((channel.inputs - channel.low) // cell, 0, size - 1).astype(int)
    count = np.bincount(place_of, minlength=size).astype(np.float64)
    # The unrounded table's shape is known: only what the observations differ from it by is smoothed.
    surplus = np.bincount(place_of, weights=channel.differences, minlength=size)
    reach = max(1, size // 48)
    kernel = np.exp(-0.5 * (np.arange(-2 * reach, 2 * reach + 1) / reach) ** 2)
    kernel /= kernel.sum()
    if size >= len(kernel):
        count, surplus = (np.convolve(a, kernel, mode="same") for a in (count, surplus))
    # Smoothing carries differences to neighbours, where they may lead out of the table's range.
    wanted = np.clip(known + surplus / (count + PRIOR * cell), channel.table.min(), channel.table.max())
    weight = (1 - FLOOR) * count / max(count.sum(), 1e-9) + FLOOR / size
    return _Seen(centre, weight, wanted)


def _at(channel: Channel, x: np.ndarray) -> np.ndarray:
    """The unrounded table at accumulators, whole or not."""
    index = np.clip(np.rint(x - channel.first) // channel.step, 0, len(channel.table) - 1).astype(int)
    return np.asarray(channel.table[index], np.float64)


def _fill(shifted: np.ndarray, seen: _Seen, width: Width, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Tables and their errors for several offsets: (offsets, size) and (offsets).

    Args:
        shifted: (offsets, cells): the cells' accumulators as they come to the rounding.
        seen: What was observed there.
        width: The layer's width.
        noise: As in ``place``.
    """
    step, size = 2**width.removed, 2 ** (width.bits - width.removed)
    exact = shifted / step + 0.5
    whole = np.floor(exact)
    index = np.clip(whole, 0, size - 1).astype(int)
    above, below = _misread(exact - whole, noise)
    reads = [
        (index, seen.weight * (1 - above - below)),
        (np.minimum(index + 1, size - 1), seen.weight * above),
        (np.maximum(index - 1, 0), seen.weight * below),
    ]
    count = len(shifted)
    rows = np.arange(count)[:, None]
    mass, total = np.zeros((count, size)), np.zeros((count, size))
    for entry, weight in reads:
        # One count for all offsets, each with entries of its own.
        place = (entry + rows * size).reshape(-1)
        for sums, weights in ((mass, weight), (total, weight * seen.wanted)):
            sums += np.bincount(place, weights=weights.reshape(-1), minlength=count * size).reshape(
                count, size
            )
    used = mass > 1e-12
    mean = total / np.where(used, mass, 1.0)
    tables = np.rint(np.take_along_axis(mean, _nearest(used), axis=1))
    errors = [(w * (tables[rows, e] - seen.wanted) ** 2).sum(axis=1) for e, w in reads]
    return tables, np.asarray(sum(errors[1:], errors[0]))


def _nearest(used: np.ndarray) -> np.ndarray:
    """For each entry of each row the nearest one that is used; of two the lower one."""
    entries = np.arange(used.shape[1])
    beyond = 2 * used.shape[1]
    below = np.maximum.accumulate(np.where(used, entries, -beyond), axis=1)
    above = np.minimum.accumulate(np.where(used, entries, beyond)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.where(entries - below <= above - entries, below, above))


def _misread(place_in_step: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that noise carries a value into the next step above, and below."""
    if noise <= 0:
        return np.zeros_like(place_in_step), np.zeros_like(place_in_step)
    # The logistic curve is the normal one to within a hundredth, and needs no special function.
    slope = 1.702 / noise
    return 1 / (1 + np.exp(slope * (1 - place_in_step))), 1 / (1 + np.exp(slope * place_in_step))
