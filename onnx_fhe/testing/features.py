"""Inputs of random networks: correlated features, some of them as awkward as those of real tables."""

from __future__ import annotations

import numpy as np

from .choices import Choices

KINDS = ("shifted", "large", "small", "constant", "binary", "sparse", "skewed", "whole")
"""What a feature may be, besides plain: of unit variance and nearly centred."""
STRAY_VALUES = (-9999.0, 1e6, -1e5)
"""What a cell of the calibration data may hold in place of a value that is missing, or wrong."""
MIN_STRAY_CELLS = 500
"""A tensor of fewer cells has no stray one: one in a thousand is what calibration has to bear."""


def features(
    choices: Choices, random: np.random.Generator, shape: tuple[int, ...], count: int, awkward: bool
) -> np.ndarray:
    """Samples of one input: float32 (count, *shape).

    A few hidden variables and three clusters are behind them, as behind most data; images are smooth.

    Args:
        choices: Makes the decisions.
        random: Where the numbers come from.
        shape: Shape of one sample; axis 0 of it tells features (channels) apart.
        count: Samples.
        awkward: Some features are of the ``KINDS``; else all are plain.
    """
    hidden = random.normal(0, 1, (count, 4)) + random.normal(0, 1.5, (3, 4))[random.integers(0, 3, count)]
    size = int(np.prod(shape))
    array = hidden @ random.normal(0, 0.5, (4, size)) + random.normal(0, 0.5, (count, size))
    array = array.reshape(count, *shape)
    for axis in range(2, array.ndim):
        array = (array + np.roll(array, 1, axis)) / 2**0.5
    array = (array - array.mean(axis=0)) / array.std()
    if awkward:
        for i in range(shape[0]):
            if choices.chance(0.4):
                array[:, i] = _as(choices.pick(KINDS), array[:, i], choices, random)
    return np.asarray(array.astype(np.float32))


def with_stray_cell(choices: Choices, array: np.ndarray) -> np.ndarray:
    """The samples with one cell replaced by a number that no other is near."""
    if array.size < MIN_STRAY_CELLS:
        return array
    spoiled = array.copy()
    spoiled.reshape(-1)[choices.whole(0, array.size - 1)] = choices.pick(STRAY_VALUES)
    return spoiled


def _as(kind: str, x: np.ndarray, choices: Choices, random: np.random.Generator) -> np.ndarray:
    if kind == "shifted":
        return np.asarray(x + choices.pick((20.0, -300.0, 1000.0)))
    if kind == "large":
        return np.asarray(x * choices.pick((50.0, 3000.0, 2e5)))
    if kind == "small":
        return np.asarray(x * choices.pick((0.02, 1e-4)))
    if kind == "constant":
        return np.full_like(x, choices.pick((0.0, 1.0, 273.15)))
    if kind == "binary":
        return np.asarray(x > 0.3, float)
    if kind == "sparse":
        return np.where(random.random(x.shape) < 0.85, 0.0, np.abs(x))
    if kind == "skewed":
        return np.asarray(np.exp(1.2 * x))
    return np.asarray(np.clip(np.rint(3 * x + 5), 0, 20))
