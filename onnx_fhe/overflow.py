"""How often a circuit is expected to overflow, before anyone runs it on new data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from .analysis.ranges.ranges import SoundRanges, extremes
from .analysis.ranges.tails import MIN_SAMPLES, Tails, distinct
from .ir.ops import Decrypt, TableLookup

TOLD_OVERFLOW_RATE = 1 / 1000
"""Share of the samples with an overflow from which on a note says so."""

_Declared = tuple[ir.Value, tuple[int, ...], np.ndarray, np.ndarray]


def expected_overflow(model: ir.Model, data: Mapping[str, np.ndarray] | None) -> float | None:
    """Share of samples like the calibration data in which any accumulator leaves its declared range.

    The tails of what calibration samples give are carried on to the declared bounds
    (``analysis.ranges.tails``). Ranges that provably hold, whatever is encrypted, add nothing.

    Args:
        model: Integer level, finished.
        data: Calibration inputs by name.

    Returns:
        The share; 0 where no input can overflow; None where there are too few different samples to tell.
    """
    sound = SoundRanges(model)
    open_ends = []
    for value, axes, low, high in _declared(model):
        least, most = sound.of(value)
        gone = tuple(i for i in range(1, least.ndim) if i not in axes)
        safe = (
            least.min(axis=gone, keepdims=True) >= low,
            most.max(axis=gone, keepdims=True) <= high,
        )
        if not (safe[0].all() and safe[1].all()):
            open_ends.append(((value, axes), (low, high), safe))
    if not open_ends:
        return 0.0
    chosen = None if data is None else distinct(data)
    if data is None or chosen is None or len(chosen) < MIN_SAMPLES:
        return None
    seen = extremes(model, {k: a[chosen] for k, a in data.items()}, [place for place, _, _ in open_ends])
    share = 0.0
    for place, (low, high), safe in open_ends:
        found = seen[place]
        if len(found.low) != len(chosen):
            return None
        least, most = found.range
        spare = np.where(safe[1], np.inf, high - most), np.where(safe[0], np.inf, least - low)
        margins = np.concatenate([m.reshape(-1) for m in spare])
        share += float(Tails.of(found).rates(margins).sum())
    return min(1.0, share)


def _declared(model: ir.Model) -> Iterator[_Declared]:
    """What declares a range: the accumulator, the axes of its channels, and its bounds along them."""
    for lookup in TableLookup.all_in(model):
        rank = len(lookup.source.shape or [])
        axes = (lookup.axis % rank,) if lookup.channels > 1 else ()
        low = lookup.per_channel(lookup.first.astype(np.float64), rank)
        yield lookup.source, axes, low, low + lookup.span
    for decrypt in Decrypt.all_in(model):
        rank = len(decrypt.input.shape or [])
        low, high = (np.float64(x).reshape([1] * rank) for x in decrypt.range)
        yield decrypt.input, (1,) if rank > 1 else (), low, high


def in_words(share: float | None) -> str:
    """The expected overflow for people."""
    if share is None:
        return "not known: too few different calibration samples"
    if share == 0:
        return "cannot happen, whatever is encrypted"
    if share < 1e-6:
        return "less than 1 in 1,000,000 samples expected"
    count = 1 / share
    digits = 10 ** max(0, len(str(int(count))) - 2)
    return f"about 1 in {round(count / digits) * digits:,} samples expected"


def notes(share: float | None) -> list[str]:
    """What the user should be told of it."""
    if share is None or share <= TOLD_OVERFLOW_RATE:
        return []
    return [
        f"overflow: {in_words(share)}; such samples may get wrong results. More calibration samples tell more"
        " of the tails; a larger --range-margin makes it rarer, --range-mode sound rules it out"
    ]
