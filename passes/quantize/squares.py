"""What quantizing loses: mean squared errors of many scales at once."""

from __future__ import annotations

import numpy as np

BLOCK_ELEMENTS = 2**15
"""Elements of an intermediate result: as many as stay in the cache of a core."""


def squared_errors(sample: np.ndarray, scales: np.ndarray, zero_point: int, top: int) -> np.ndarray:
    """Mean squared error of ``scale * (clip(round(x / scale) + zero_point, 0, top) - zero_point)``.

    A quantizer is fitted by trying hundreds of them, most on a few hundred values: one call of numpy for
    several scales takes as long as for one. Each result is, to the last bit, what its scale gives alone.

    Args:
        sample: (rows, channels), double precision.
        scales: (scales, channels); 0 for a channel that is always taken for 0.
        zero_point: The integer that stands for 0.
        top: The largest integer.

    Returns:
        (scales, channels).
    """
    used = scales > 0
    inverses = np.where(used, 1.0 / np.where(used, scales, 1.0), 0.0)
    # A single column is the last axis: numpy sums it in pairs, as it does a column alone.
    flat = sample.shape[1] == 1
    values = sample[:, 0] if flat else sample
    found = np.empty_like(scales)
    step = max(1, BLOCK_ELEMENTS // max(1, values.size))
    buffer = np.empty((min(step, len(scales)), *values.shape))
    for start in range(0, len(scales), step):
        part = slice(start, start + step)
        inverse, scale = (a[part] if flat else a[part, None] for a in (inverses, scales))
        errors = np.multiply(values, inverse, out=buffer[: len(scale)])
        np.rint(errors, out=errors)
        np.clip(errors, -zero_point, top - zero_point, out=errors)
        errors *= scale
        errors -= values
        errors *= errors
        found[part] = errors.mean(axis=1).reshape(len(scale), -1)
    return found
