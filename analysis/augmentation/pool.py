"""What the student is trained on: calibration inputs, mixtures of them, noise and movements.

Only what the calibration data spans is made: every value stays within the range that each input element had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .images import moved

MAX_POOL_BYTES = 256 << 20
"""Memory that the pool of augmented inputs takes at most."""
MIXED, MOVED = (0.3, 0.7), (0.3, 0.9)
"""Shares of made samples that are mixed of two, and of images that are moved, with few weights for each
sample and with many: more takes a small student's strength away from inputs as they really are, and less lets
a large one learn its samples by heart."""
MANY_WEIGHTS_A_SAMPLE = 20.0
"""Weights for each calibration sample from which on a student has many."""
NOISE_OF_MANY = 0.1
"""Most noise on an element, in standard deviations, of an input with many elements. With two it is 1: then
the samples can cover the whole range."""
NOISE_DECAY_ELEMENTS = 4.0
"""Elements more over which the noise falls towards ``NOISE_OF_MANY``, by a factor of e."""


STRONG_NOISE = 0.2
"""Noise (standard deviations) from which on a sample may have moved to where another label is right."""


@dataclass(frozen=True)
class Parts:
    """Calibration samples, split.

    Attributes:
        train, held: Indices of samples; ``held`` decides when to stop, and is trained on only where no share
            is held back.
    """

    train: np.ndarray
    held: np.ndarray


def split(total: int, share: float, random: np.random.Generator) -> Parts:
    """Hold back a share of the samples (at least 16 where there are 64).

    With no share at all the samples that are trained on also choose the best state.
    """
    order = random.permutation(total)
    if not share:
        return Parts(np.arange(total), np.arange(total))
    count = max(int(total * share), min(16, total // 4))
    return Parts(np.sort(order[count:]), np.sort(order[:count]))


def pool(
    data: Mapping[str, np.ndarray],
    copies: int,
    random: np.random.Generator,
    images: Mapping[str, tuple[int, int]],
    sparse: float,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Augmented samples beside the given ones.

    Args:
        data: Inputs by name, samples on axis 0.
        copies: Augmented samples for each given one, as far as memory allows.
        random: Source of chance.
        sparse: Weights that the student has for each given sample.
        images: Height and width of the inputs that are images; their last axes (or the flat one) are shifted.

    Returns:
        Inputs by name, and for each sample the two it was mixed from and the share of the first.
    """
    total = len(next(iter(data.values())))
    size = sum(a[0].nbytes for a in data.values())
    copies = int(max(1, min(copies, MAX_POOL_BYTES // max(1, size * total))))
    count = total * copies
    first, second = random.integers(total, size=count), random.integers(total, size=count)
    share = random.beta(0.6, 0.6, size=count)
    often, often_moved = (_by_weights(shares, sparse) for shares in (MIXED, MOVED))
    share = np.where(random.random(count) >= often, 1.0, np.maximum(share, 1 - share))
    made: dict[str, np.ndarray] = {}
    noise = _noise(data)
    for name, array in data.items():
        if array.dtype.kind == "b" or (array.dtype.itemsize > 1 and array.dtype.kind in "iu"):
            made[name] = np.concatenate([array, crossed(array[first], array[second], share, random)])
            continue
        spread = share.reshape([-1] + [1] * (array.ndim - 1))
        spread = spread.astype(np.promote_types(array.dtype, np.float16))
        a, b = array[first], array[second]
        if name in images:
            a, b = (moved(x, images[name], often_moved, random) for x in (a, b))
        mixed = a * spread + b * (1 - spread)
        if array.dtype.kind in "iu":  # pixels
            made[name] = np.concatenate([array, np.rint(mixed).astype(array.dtype)])
            continue
        sigma = array.std(axis=0, keepdims=True) * random.uniform(0, noise, size=spread.shape)
        noisy = mixed + random.standard_normal(mixed.shape) * sigma
        low, high = array.min(axis=0, keepdims=True), array.max(axis=0, keepdims=True)
        if name in images:  # a pixel may move to where calibration saw none
            low, high = low.min(), high.max()
        made[name] = np.concatenate([array, np.clip(noisy, low, high).astype(array.dtype)])
    same = np.arange(total)
    return (
        made,
        np.concatenate([same, first]),
        np.concatenate([same, second]),
        np.concatenate([np.ones(total), share]),
    )


def crossed(a: np.ndarray, b: np.ndarray, share: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Codes, which have no mean: each cell is that of ``a``, with probability ``share``, or that of ``b``."""
    chosen = random.random(a.shape) < share.reshape([-1] + [1] * (a.ndim - 1))
    return np.where(chosen, a, b)


def blended(
    data: Mapping[str, np.ndarray], share: float, times: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Mixtures of each sample with others.

    Args:
        data: Inputs by name, samples on axis 0.
        share: Share of the sample itself in the mixture.
        times: Mixtures of each.
        random: Source of chance.
    """
    total = len(next(iter(data.values())))
    first, second = np.tile(np.arange(total), times), random.integers(total, size=total * times)
    made = {}
    for name, array in data.items():
        a, b = array[first], array[second]
        if array.dtype.kind == "f" or (array.dtype.itemsize == 1 and array.dtype.kind in "iu"):
            mixed = a * np.float32(share) + b * np.float32(1 - share)
            made[name] = (mixed if array.dtype.kind == "f" else np.rint(mixed)).astype(array.dtype)
        else:
            made[name] = crossed(a, b, np.full(len(a), share), random)
    return made


def is_small(data: Mapping[str, np.ndarray]) -> bool:
    """Whether a sample has few elements.

    Then noise is so strong, to cover the whole range, that made samples need not have the labels of those
    they were made of.
    """
    return _noise(data) > STRONG_NOISE


def _noise(data: Mapping[str, np.ndarray]) -> float:
    elements = sum(a[0].size for a in data.values())
    return NOISE_OF_MANY + (1 - NOISE_OF_MANY) * float(np.exp(-(elements - 2) / NOISE_DECAY_ELEMENTS))


def _by_weights(shares: tuple[float, float], sparse: float) -> float:
    """Between the shares for few and for many weights a sample."""
    few, many = shares
    return many + (few - many) * float(np.exp(-sparse / MANY_WEIGHTS_A_SAMPLE))
