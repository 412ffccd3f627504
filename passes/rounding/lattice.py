"""Where the lattice of a rounded table lies and what stands in it (LOWERING, steps 4, 5 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PHASES = 32
"""Offsets that are tried for each channel."""
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
        return 2**self.bits - 1 - (2 ** (self.removed - 1) if self.removed else 0)


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
    """

    low: int
    high: int
    first: int
    table: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Placed:
    """A channel on its lattice.

    Attributes:
        offset: Added to the accumulator before rounding.
        table: (2^P) entries.
        error: Mean squared error against the unrounded table.
    """

    offset: int
    table: np.ndarray
    error: float


def place(channel: Channel, width: Width, integral: bool = True) -> Placed:
    """Choose the offset whose lattice loses least, and fill the table.

    An entry is the weighted mean of what the unrounded network has at the accumulators that fall on it.

    Args:
        channel: The channel.
        width: The layer's width.
        integral: Whether entries are rounded to integers (always, but for tests of the error).
    """
    span = channel.high - channel.low
    x = np.arange(channel.low, channel.high + 1)
    unrounded = channel.table[np.clip(x - channel.first, 0, len(channel.table) - 1)].astype(np.float64)
    weight, wanted = _observations(channel, span, unrounded)
    slack = max(0, width.top - span)
    reach = min(slack, 2**width.removed - 1) if width.removed else 0
    starts = np.unique(np.linspace(0, reach, min(PHASES, reach + 1)).round().astype(int))
    # Where the range is not filled, the free part is shared out on both sides: what exceeds it then still fits.
    base = (slack - reach) // 2
    size = 2 ** (width.bits - width.removed)
    best: Placed | None = None
    for start in starts:
        offset = int(base + start - channel.low)
        placed = _fill(x + offset, weight, wanted, width, size, integral)
        if best is None or placed[1] < best.error:
            best = Placed(offset, placed[0], placed[1])
    assert best is not None
    return best


def _observations(channel: Channel, span: int, unrounded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and wanted entry of every accumulator of the range, smoothed over its neighbours."""
    place_of = np.clip(channel.inputs - channel.low, 0, span).astype(int)
    count = np.bincount(place_of, minlength=span + 1).astype(np.float64)
    total = np.bincount(place_of, weights=channel.targets, minlength=span + 1)
    # The unrounded table's shape is known: only what the observations differ from it by is smoothed.
    surplus = total - count * unrounded
    reach = max(1, span // 48)
    kernel = np.exp(-0.5 * (np.arange(-2 * reach, 2 * reach + 1) / reach) ** 2)
    kernel /= kernel.sum()
    smooth = np.convolve(count, kernel, mode="same") if len(count) >= len(kernel) else count
    moved = np.convolve(surplus, kernel, mode="same") if len(count) >= len(kernel) else surplus
    wanted = unrounded + moved / (smooth + PRIOR)
    weight = (1 - FLOOR) * smooth / max(smooth.sum(), 1e-9) + FLOOR / (span + 1)
    return weight, wanted


def _fill(
    shifted: np.ndarray, weight: np.ndarray, wanted: np.ndarray, width: Width, size: int, integral: bool
) -> tuple[np.ndarray, float]:
    step = 2**width.removed
    index = np.clip((shifted + step // 2) // step if step > 1 else shifted, 0, size - 1).astype(int)
    mass = np.bincount(index, weights=weight, minlength=size)
    mean = np.bincount(index, weights=weight * wanted, minlength=size) / np.where(mass > 0, mass, 1.0)
    used = np.flatnonzero(mass > 0)
    nearest = used[np.abs(np.arange(size)[:, None] - used[None]).argmin(axis=1)]
    table = mean[nearest]
    if integral:
        table = np.rint(table)
    return table, float((weight * (table[index] - wanted) ** 2).sum())
