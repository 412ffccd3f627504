"""Where the lattice of a rounded table lies, and what stands in it (docs/design/lowering.md, steps 6 and 7).

Every offset and gain that is tried needs sums over the accumulators that fall on each entry. So the sums of
all accumulators above a point are taken once, blurred by the noise of rounding, and an entry is a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .lattice import Channel, Placed, Width

PHASES = 32
"""Offsets that are tried for each channel, as a rule."""
ROUGH_PHASES = 8
"""Offsets that are tried where there are very many channels."""
WORTHWHILE_ERROR_SHARE = 0.9
"""A smaller gain has to bring the error down to this share."""
PRIOR_OBSERVATIONS = 0.25
"""How many observations the unrounded table counts for at each of its inputs."""
SPREAD_WEIGHT_SHARE = 0.05
"""Share of the weight that is spread evenly over the range, for inputs that calibration did not show."""
NOISE_CUTOFF = 16
"""Where the logistic curve of the noise is cut off: a share of e^-16 is left."""
MAX_OWN_STEPS = 2
"""Smaller gains are tried for tables of at most so many steps of their own for each entry that is left."""
TRIAL_GAINS = 4
"""Gains of a channel that a trial looks at."""
CHUNK_CANDIDATES = 64
"""Channels and gains that are treated in one go."""
READ_WEIGHT_SHARE = 1e-9
"""Share of the weight from which on an entry counts as one that is read."""


def place_all(
    channels: Sequence[Channel],
    width: Width,
    most: Sequence[int],
    noise: float = 0.0,
    rough: bool = False,
    trial: bool = False,
) -> list[Placed]:
    """``place`` each channel of a table with the best gain of at most ``most``.

    The largest one sees most steps. A smaller one is better where the table has steps of its own, as that of
    a network that was trained with its rounding: then the lattices fall on one another.

    Args:
        channels: Channels of one table.
        width: Width of the layer.
        most: The largest gain of each channel.
        noise: As for ``place``.
        rough: Try fewer offsets, and the largest gains only.
        trial: Try no more than ``TRIAL_GAINS`` gains for each channel.
    """
    phases, levels = (
        (ROUGH_PHASES, 0) if rough else (PHASES, MAX_OWN_STEPS * 2 ** (width.bits - width.removed))
    )
    tried = []
    for c, (channel, largest) in enumerate(zip(channels, most, strict=True)):
        last = (int(largest) + 1) // 2 if channel.steps <= levels else int(largest)
        stride = max(1, -(-(int(largest) - last + 1) // TRIAL_GAINS)) if trial else 1
        tried += [(c, g) for g in range(int(largest), last - 1, -stride)]
    best: dict[int, Placed] = {}
    for start in range(0, len(tried), CHUNK_CANDIDATES):
        some = tried[start : start + CHUNK_CANDIDATES]
        for (c, _), found in zip(
            some, _place([(channels[c], g) for c, g in some], width, noise, phases), strict=True
        ):
            if c not in best or found.error < WORTHWHILE_ERROR_SHARE * best[c].error:
                best[c] = found
    return [best[c] for c in range(len(channels))]


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
    return _place([(channel, gain)], width, noise, phases)[0]


def _place(tried: Sequence[tuple[Channel, int]], width: Width, noise: float, phases: int) -> list[Placed]:
    """``place`` channels with gains, all in one go."""
    step, size = 2**width.removed, 2 ** (width.bits - width.removed)
    # All lives on grains of 1/phases of a step: no finer than matters, however wide the accumulator is.
    grain = max(1, step // phases)
    sums, grains, starts, middles = [], [], [], []
    seen: dict[Channel, _Seen] = {}
    for channel, gain in tried:
        if channel not in seen:
            seen[channel] = _observe(channel, max(1, grain // gain))
        what = seen[channel]
        # Entries are counted from their middle: what is constant then loses nothing to cancellation.
        middles.append(float(np.rint(what.wanted.mean())))
        wanted = what.wanted - middles[-1]
        sums.append(np.stack([what.weight, what.weight * wanted, what.weight * wanted**2]))
        grains.append(_grains(channel, what.centre, gain, grain))
        slack = max(0, width.top - (channel.high - channel.low) * gain)
        reach = min(slack, step - 1) if width.removed else 0
        # Where the range is not filled, the free part is shared out on both sides: what exceeds it then still
        # fits.
        starts.append((slack - reach) // 2 // grain * grain + np.arange(0, reach + 1, grain))
    # A grain's accumulators are in its middle; where they are whole steps, or one by one, at its beginning.
    above = _Above.of(sums, grains, _read_above(step // grain, 0.5 if grain > 1 or step == 1 else 0.0, noise))
    rows = np.repeat(np.arange(len(tried)), [len(s) for s in starts])
    # Entry e begins at (e - 1/2) steps.
    begins = (np.arange(1, size) * step - step // 2 - np.concatenate(starts)[:, None]) // grain
    tables, errors = _fill(above.between(rows, begins))
    placed, first = [], 0
    for (channel, gain), offsets, middle in zip(tried, starts, middles, strict=True):
        best = first + int(np.argmin(errors[first : first + len(offsets)]))
        offset = int(offsets[best - first]) - channel.low * gain
        placed.append(Placed(offset, tables[best] + middle, float(errors[best]), gain))
        first += len(offsets)
    return placed


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
    known = channel.at(centre)
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
    wanted = np.clip(
        known + surplus / (count + PRIOR_OBSERVATIONS * cell), channel.table.min(), channel.table.max()
    )
    weight = (1 - SPREAD_WEIGHT_SHARE) * count / max(count.sum(), 1e-9) + SPREAD_WEIGHT_SHARE / size
    return _Seen(centre, weight, wanted)


def _grains(channel: Channel, centre: np.ndarray, gain: int, grain: int) -> np.ndarray:
    """The grain that each cell's accumulator falls on, after its gain; the first one is 0."""
    x = np.clip((centre * gain).astype(np.int64), channel.low * gain, channel.high * gain)
    return np.asarray((x - channel.low * gain) // grain)


@dataclass(frozen=True)
class _Above:
    """Sums over all cells that are read at a grain or behind it.

    Attributes:
        sums: (3, rows, grains).
        margin: Grains in front of the first one.
    """

    sums: np.ndarray
    margin: int

    @classmethod
    def of(cls, sums: Sequence[np.ndarray], grains: Sequence[np.ndarray], read: np.ndarray) -> _Above:
        """Add up ``sums`` (3, cells) over the grains that the cells fall on; for each row a pair of them.

        Args:
            sums: Sums of each cell.
            grains: The grain of each cell.
            read: Shares of a cell that are read elsewhere (``_read_above``).
        """
        margin = len(read) // 2 + 1
        size, count = max(int(g[-1]) for g in grains) + 1 + 2 * margin, len(grains)
        flat = np.concatenate([g + (row * size + margin) for row, g in enumerate(grains)])
        cells = np.concatenate(sums, axis=1)
        found: np.ndarray = np.stack([np.bincount(flat, w, count * size) for w in cells])
        found = found.reshape(3, count, size)
        if len(read) > 1:
            length = 1 << (size + len(read) - 1).bit_length()
            blurred = np.fft.irfft(np.fft.rfft(found, length) * np.fft.rfft(read, length), length)
            found = blurred[..., len(read) // 2 :][..., :size]
        return cls(np.cumsum(found[..., ::-1], axis=-1)[..., ::-1], margin)

    def between(self, rows: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """Sums of entries: (3, offsets, entries).

        Args:
            rows: (offsets).
            begins: (offsets, entries - 1) where the entries begin, all but the first.
        """
        size = self.sums.shape[-1]
        inner = np.clip(begins + self.margin, 0, size - 1)
        found = np.zeros((3, len(rows), begins.shape[1] + 2))
        found[..., 0] = self.sums[:, rows, 0]
        flat = self.sums.reshape(3, -1)
        np.take(flat, inner + rows[:, None] * size, axis=1, out=found[..., 1:-1])
        return np.asarray(found[..., :-1] - found[..., 1:])


def _read_above(step: int, place: float, noise: float) -> np.ndarray:
    """How much of a grain is read as if it were another one: taps of a convolution, the middle one its own.

    Args:
        step: Grains of a step.
        place: Where in its grain an accumulator is, 0 to 1.
        noise: Standard deviation of what approximate rounding adds, in steps; without it there is one tap.
    """
    if noise <= 0:
        return np.ones(1)
    # The logistic curve is the normal one to within a hundredth, and needs no special function.
    slope = 1.702 / noise / step
    reach = int(np.ceil(NOISE_CUTOFF / slope)) + 1
    edges = np.arange(-reach - 1, reach + 1) + place
    return np.diff(1 / (1 + np.exp(-slope * edges)))[::-1]


def _fill(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables and their errors for several offsets: (offsets, size) and (offsets).

    Args:
        sums: (3, offsets, size): weight of what is read from each entry, and the sums of what is wanted there
            and of its square.
    """
    mass, total, squares = sums
    used = mass > READ_WEIGHT_SHARE
    mean = total / np.where(used, mass, 1.0)
    tables = np.rint(np.take_along_axis(mean, _nearest(used), axis=1))
    errors = (squares - 2 * tables * total + tables**2 * mass).sum(axis=1)
    return tables, np.maximum(errors, 0.0)


def _nearest(used: np.ndarray) -> np.ndarray:
    """For each entry of (offsets, size) the nearest one that is used."""
    entries = np.broadcast_to(np.arange(used.shape[1]), used.shape)
    far = 2 * used.shape[1]
    before = np.maximum.accumulate(np.where(used, entries, -far), axis=1)
    behind = np.minimum.accumulate(np.where(used, entries, far)[:, ::-1], axis=1)[:, ::-1]
    return np.where(entries - before <= behind - entries, before, behind)
