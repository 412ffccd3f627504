"""Which families of features are tried for which inputs, and the columns of smaller ones among larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .families import Family
from .statistics import InputStatistics

FEW_ELEMENTS = 16
"""Elements of an input up to which functions of it may be steep: features of several scales are tried."""
SCALES, SCALES_OF_FEW = (0.7,), (1.0, 2.0, 4.0, 8.0)
"""Turns of cosines over the typical distance of two samples."""
MAX_COSINE_ELEMENTS = 8192
"""Elements of an input up to which cosines are tried: each takes so many products."""
MAX_INPUT_FEATURES = 1024
"""Elements of an input up to which it is itself among the features."""
MAX_BINNED_ELEMENTS, MAX_PAIRED_ELEMENTS = 64, 6
"""Elements of an input up to which each is cut into bins, and up to which products of two are taken."""
BINS = (8, 12, 16)
"""Bins of each element."""
MIN_SIDE = 6
"""Side of the smallest image that is convolved."""
SMALL_SIDE = 16
"""Side of an image up to which filters are small."""


@dataclass(frozen=True)
class Candidate:
    """A family with its smaller relatives.

    Attributes:
        family: With the most features.
        sizes: Sizes to look at, the smallest first.
    """

    family: Family
    sizes: tuple[int, ...]


def candidates(known: Sequence[InputStatistics], most: int, only: str = "auto") -> list[Candidate]:
    """What may be tried.

    Args:
        known: The inputs.
        most: Features that are drawn at most.
        only: The one family to try; ``auto`` for all.
    """
    found = [Candidate(Family("inputs"), (0,))] if has_inputs(known) else []
    found += [*_cosines(known, most), *_convolutions(known, most), *_bins(known, most)]
    return [c for c in found if only in ("auto", c.family.name)]


def has_inputs(known: Sequence[InputStatistics]) -> bool:
    """Whether the inputs themselves are among the features."""
    return sum(k.width for k in known) <= MAX_INPUT_FEATURES


def columns(known: Sequence[InputStatistics], family: Family, size: int) -> np.ndarray:
    """Which features of ``family`` are those of its relative of that size (indices)."""
    before = sum(k.width for k in known) if family.inputs else 0
    own = np.arange(before)
    if family.name == "inputs":
        return own
    if family.name == "convolutions":
        blocks = []
        for one in known:
            if one.image is None:
                continue
            places = _places(one.image, family.grid)
            blocks.append(before + np.arange(size * places))
            before += family.size * places
        return np.concatenate([own, *blocks])
    total = size if family.name == "cosines" else bin_count(sum(k.width for k in known), family)
    return np.concatenate([own, before + np.arange(total)])


def bin_count(width: int, family: Family) -> int:
    """Features of the family of bins."""
    pairs = width * (width - 1) // 2 if family.pairs else 0
    return int(width * family.size + pairs * family.size**2)


def _halved(most: int, least: int) -> tuple[int, ...]:
    """``most`` and its halves down to ``least``, the smallest first."""
    sizes = [most]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


def _cosines(known: Sequence[InputStatistics], most: int) -> list[Candidate]:
    width = sum(k.width for k in known)
    if width > MAX_COSINE_ELEMENTS:
        return []
    scales = SCALES_OF_FEW if width <= FEW_ELEMENTS else SCALES
    beside, sizes = has_inputs(known), _halved(most, min(32, most))
    return [Candidate(Family("cosines", most, scale, inputs=beside), sizes) for scale in scales]


def _places(image: tuple[int, int, int], grid: int) -> int:
    """Places that averages are taken over."""
    height, width = (size // max(1, round(size / grid)) for size in image[1:])
    return int(height * width)


def _convolutions(known: Sequence[InputStatistics], most: int) -> list[Candidate]:
    images = [k.image for k in known if k.image is not None and min(k.image[1:]) >= MIN_SIDE]
    if not images or len(images) < sum(k.image is not None for k in known):
        return []
    small = min(min(i[1:]) for i in images) <= SMALL_SIDE
    found = []
    for kernel, grid in ((3, 4),) if small else ((7, 4), (7, 6)):
        filters = max(1, most // sum(_places(i, grid) for i in images))
        for beside in (False, True) if has_inputs(known) else (False,):
            family = Family("convolutions", filters, 0.0, kernel, grid, inputs=beside)
            found.append(Candidate(family, _halved(filters, 4)))
    return found


def _bins(known: Sequence[InputStatistics], most: int) -> list[Candidate]:
    width = sum(k.width for k in known)
    if width > MAX_BINNED_ELEMENTS or any(k.image is not None for k in known):
        return []
    found = []
    for size in BINS:
        for pairs in (False, True) if 2 <= width <= MAX_PAIRED_ELEMENTS else (False,):
            family = Family("bins", size, pairs=pairs)
            if bin_count(width, family) <= most:
                found.append(Candidate(family, (size,)))
    return found
