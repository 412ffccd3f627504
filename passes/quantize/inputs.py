"""Quantizers of what the client encrypts: an offset and a scale for each feature, where that says more.

The client's side is free, and the first linear layers take scales into their weights and offsets into their
biases. So the same function keeps the same accuracy whether its features are standardised in front of the
first weights or inside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .activations import MAX_FITTED_ROWS, SHRINK, Quantizer, grid, some_rows, squared_error

COMMON_SCALE_ERROR_RATIO = 4.0
"""One scale for the tensor stays unless it makes so many times the error: features that scales of their own
would clip a little have more room under it."""
FREE_ERROR_SHARE = 1e-5
"""Share of the layers' variance that an error may always have."""
MAX_ERROR_GROWTH = 1.5
"""By how much the error may grow so that features whose steps count less have room for more than was seen."""
SCALE_HALVINGS = 40
"""Halvings of the interval in which a scale is looked for."""
EQUAL_STEP_DISTANCE = 1e-3
"""How far values may be from equal distances, in steps."""


@dataclass(frozen=True)
class Features:
    """What is known of an encrypted input whose scales the next layers take.

    Attributes:
        values: (rows, features) on calibration data.
        weight: (features) what a squared error of each counts in the layers that read it, over the variance
            of what they put out.
        offsets: Whether the layers can take offsets, too (a padded convolution cannot).
        shape: To which scales are reshaped so that they broadcast with the tensor.
    """

    values: np.ndarray
    weight: np.ndarray
    offsets: bool
    shape: list[int]


def fit_features(features: Features, plain: Quantizer, method: str) -> Quantizer:
    """A scale and an offset for each feature, or ``plain`` where that is about as good.

    Args:
        features: What is to be quantized.
        plain: One scale for the whole tensor.
        method: As for ``fit_quantizer``: with ``mse`` ranges may be clipped.
    """
    sample = some_rows(features.values)
    low, high = (a.astype(np.float64) for a in (features.values.min(axis=0), features.values.max(axis=0)))
    if plain.bits == 1 and not features.offsets and low.min() < 0 < high.max():
        return plain  # one bit has no room for 0 between values of both signs
    own = _starting(low, high, sample, features, plain)
    constant = low == high
    before, after = (features.weight * _varying(q, sample) for q in (plain, own))
    signal = features.weight * sample.var(axis=0)
    if before.sum() <= COMMON_SCALE_ERROR_RATIO * after.sum() + FREE_ERROR_SHARE * signal.sum():
        return plain
    if method == "mse":
        own = _clipped(own, sample, low, high)
    own, exact = _on_steps(own, features.values)
    own = _with_room(own, sample, features.weight, exact | constant, float(plain.scale.max()))
    if own.offset is None:
        return replace(own, scale=np.where(own.scale > 0, own.scale, plain.scale))
    # What never varied is known: it goes into the bias, and nothing of it is encrypted.
    return replace(own, scale=np.where(constant, 0.0, own.scale), offset=np.where(constant, low, own.offset))


def _starting(
    low: np.ndarray, high: np.ndarray, sample: np.ndarray, features: Features, plain: Quantizer
) -> Quantizer:
    """Each feature's range, whole."""
    middle = (plain.top + 1) // 2
    if features.offsets:
        return grid(low, high - low, replace(plain, zero_point=middle, shape=features.shape))
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    zeros = dict.fromkeys((plain.zero_point, middle, 0, plain.top))
    tried = [
        _anchored(low, high, replace(plain, zero_point=z, shape=features.shape))
        for z in zeros
        if (z > 0 or not low.any()) and (z < plain.top or not high.any())
    ]
    return min(tried, key=lambda q: float((features.weight * squared_error(q, sample)).sum()))


def _varying(quantizer: Quantizer, sample: np.ndarray) -> np.ndarray:
    """Variance of the error: its mean goes into the bias."""
    return np.asarray((quantizer.apply(sample) - sample).var(axis=0))


def _anchored(low: np.ndarray, high: np.ndarray, like: Quantizer) -> Quantizer:
    """Smallest scales at which [low, high], with 0 in it, fits around the zero point."""
    above = high / max(like.top - like.zero_point, 1e-9)
    below = -low / max(like.zero_point, 1e-9)
    return replace(like, scale=np.maximum(above, below))


def _clipped(own: Quantizer, sample: np.ndarray, low: np.ndarray, high: np.ndarray) -> Quantizer:
    """Smaller ranges where the values that they clip lose less than finer steps gain."""
    best, error = own, squared_error(own, sample)
    for share in SHRINK[:-1]:
        spread = (high - low) * share
        tried = (
            [grid(low + anchor * (high - low - spread), spread, own) for anchor in (0.0, 0.5, 1.0)]
            if own.offset is not None
            else [replace(own, scale=own.scale * share)]
        )
        for one in tried:
            now = squared_error(one, sample)
            best = _chosen(now < error, one, best)
            error = np.minimum(now, error)
    return best


def _chosen(where: np.ndarray, first: Quantizer, second: Quantizer) -> Quantizer:
    scale = np.where(where, first.scale, second.scale)
    if second.offset is None:
        return replace(second, scale=scale)
    return replace(second, scale=scale, offset=np.where(where, first.offsets, second.offsets))


def _on_steps(own: Quantizer, values: np.ndarray) -> tuple[Quantizer, np.ndarray]:
    """Features that only take a few values at equal distances (flags, counts, grades) keep all of them."""
    scale, offset = own.scale.copy(), own.offsets.copy()
    exact = np.zeros(len(scale), bool)
    for index, column in enumerate(values.T):
        if len(np.unique(column[:MAX_FITTED_ROWS])) > own.top + 1:
            continue
        taken = np.unique(column).astype(np.float64)
        if own.offset is None:
            taken = np.unique(np.append(taken, 0.0))
        if not 2 <= len(taken) <= own.top + 1:
            continue
        first = taken[0] if own.offset is not None else 0.0
        places = (taken - first) / np.diff(taken).min()
        below, above = (0, own.top) if own.offset is not None else (own.zero_point, own.top - own.zero_point)
        times = min(
            below // -places.min() if places.min() < 0 else np.inf,
            above // places.max() if places.max() > 0 else np.inf,
        )
        if times < 1 or np.abs(places - np.rint(places)).max() > EQUAL_STEP_DISTANCE:
            continue
        exact[index] = True
        scale[index] = np.diff(taken).min() / times
        offset[index] = first + own.zero_point * scale[index]
    return replace(own, scale=scale, offset=None if own.offset is None else offset), exact


def _with_room(
    own: Quantizer, sample: np.ndarray, weight: np.ndarray, fixed: np.ndarray, most: float
) -> Quantizer:
    """Coarser steps where they hardly count, so that fewer values beyond those seen are clipped.

    Args:
        own: The quantizer.
        sample: (rows, features).
        weight: Weight of each feature's squared error.
        fixed: Features whose scale stays.
        most: Largest scale.
    """
    limit = MAX_ERROR_GROWTH * float((weight * squared_error(own, sample)).sum())
    known = weight[(weight > 0) & (own.scale > 0)]
    if not known.size:
        return own
    root = np.sqrt(np.maximum(weight, known.min() * 1e-6))

    def at(level: float) -> Quantizer:
        return own.with_scale(
            np.where(fixed, own.scale, np.clip(level / root, own.scale, np.maximum(own.scale, most)))
        )

    lowest = float(np.log((own.scale * root)[own.scale > 0].min()))
    highest = float(np.log(most * root.max()))
    best = own
    for _ in range(SCALE_HALVINGS):
        middle = (lowest + highest) / 2
        tried = at(float(np.exp(middle)))
        if float((weight * squared_error(tried, sample)).sum()) <= limit:
            best, lowest = tried, middle
        else:
            highest = middle
    return best
