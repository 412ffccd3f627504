"""What is known of the inputs of a network before any feature is drawn: sizes, means and spreads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.augmentation.images import image_sizes

MAX_OWN_SCALES = 64
"""Elements of an input from which on all of them share one mean and one spread, as pixels do."""
MAX_CATEGORIES = 64
"""Different whole numbers of an input up to which each counts as a category of its own."""
MAX_DISTANCES = 300
"""Samples whose distances from each other are looked at."""
SPREADS_TO_ONE = 3.0
"""Standard deviations that are scaled to 1: few values lie beyond."""


@dataclass(frozen=True)
class InputStatistics:
    """What is known of one input; nothing of it depends on the network.

    Attributes:
        name: Its name.
        shape: Of one sample.
        mean, spread: One number, or one for each element; ``spread`` is ``SPREADS_TO_ONE`` standard
            deviations.
        image: Channels, height and width, where it is an image (maybe laid flat).
        categories: How many values it takes, from 0 on, where these are categories; else 0.
    """

    name: str
    shape: tuple[int, ...]
    mean: np.ndarray
    spread: np.ndarray
    image: tuple[int, int, int] | None = None
    categories: int = 0

    @property
    def elements(self) -> int:
        """Elements of one sample."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Elements of one sample once categories are columns."""
        return self.elements * max(1, self.categories)

    def standardised(self, array: np.ndarray) -> np.ndarray:
        """(samples, width) as the features are computed from it."""
        flat = array.reshape(len(array), -1)
        if self.categories:
            hot = flat[:, :, None] == np.arange(self.categories)
            return np.asarray(hot.reshape(len(flat), -1), np.float32)
        return np.asarray((flat - self.mean) / self.spread, np.float32)


def describe(inputs: Sequence[ir.Value], data: Mapping[str, np.ndarray]) -> list[InputStatistics]:
    """What is known of each of the inputs, from typical samples."""
    sizes = image_sizes(data)
    return [_describe(str(v.name), np.asarray(data[str(v.name)]), sizes.get(str(v.name))) for v in inputs]


def _describe(name: str, array: np.ndarray, size: tuple[int, int] | None) -> InputStatistics:
    flat = array.reshape(len(array), -1)
    shape, elements = array.shape[1:], flat.shape[1]
    if (
        array.dtype.kind in "iub"
        and flat.size
        and flat.min() >= 0
        and flat.max() < MAX_CATEGORIES
        and not size
    ):
        count = int(flat.max()) + 1
        return InputStatistics(name, shape, np.zeros(1), np.ones(1), None, count if count > 2 else 0)
    numbers = flat.astype(np.float64)
    own = elements <= MAX_OWN_SCALES and size is None
    mean, spread = (f(numbers, axis=0 if own else None) for f in (np.mean, np.std))
    spread = np.where(spread > 0, spread, 1.0) * SPREADS_TO_ONE
    image = None if size is None else (elements // (size[0] * size[1]), *size)
    return InputStatistics(name, shape, np.atleast_1d(mean), np.atleast_1d(spread), image)


def typical_distance(flat: np.ndarray, seed: int) -> float:
    """Median distance of two samples of (samples, elements)."""
    chosen = np.random.default_rng(seed).permutation(len(flat))[:MAX_DISTANCES]
    rows = flat[chosen].astype(np.float64)
    squares = (rows**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * rows @ rows.T
    above = distances[np.triu_indices(len(rows), 1)]
    return float(np.sqrt(max(np.median(above), 1e-12))) if above.size else 1.0
