"""The lattice that rounding leaves of an accumulator, and what is known of a table that is to stand on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


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


@dataclass(frozen=True, eq=False)
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
        return np.asarray(self.targets - self.at(self.inputs))

    @cached_property
    def steps(self) -> int:
        """Neighbouring entries that are equal count once."""
        return 1 + int(np.count_nonzero(np.diff(self.table)))

    def at(self, x: np.ndarray) -> np.ndarray:
        """The unrounded table at accumulators, whole or not."""
        index = np.clip(np.rint(x - self.first) // self.step, 0, len(self.table) - 1).astype(int)
        return np.asarray(self.table[index], np.float64)


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


def centred(
    base: np.ndarray, low: np.ndarray, high: np.ndarray, seen: tuple[np.ndarray, np.ndarray], width: Width
) -> np.ndarray:
    """Offsets of raw outputs that put a channel that never varied on a point of the lattice.

    Args:
        base: Offsets that put every channel in the range.
        low, high: What is declared of the channels.
        seen: Smallest and largest value observed.
        width: Bits of the range, and those that rounding removes.
    """
    step = 2**width.removed
    moved = np.rint((seen[0] + base) / step) * step - seen[0]
    fits = (seen[0] == seen[1]) & (low + moved >= 0) & (high + moved <= width.top)
    return np.asarray(np.where(fits, moved, base))
