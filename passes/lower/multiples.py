"""Whole numbers by which the elements of one integer tensor get one scale: exact ones, or near ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .views import MAX_MULTIPLIER_ERROR, whole_multiples

MAX_ERROR_IN_STEPS = 0.125
"""Near multiples are off by this part of a step of an activation at most, where it is as large as can be."""
MAX_RELATIVE_ERROR = 1.0 / 64
"""Largest relative error of a near multiple where there is no room for more."""
MAX_MULTIPLE_TRIED = 4096
"""Largest near multiple that is tried."""
ROOM_SHARE = 0.5
"""Part of the room that near multiples take: what is rounded later grows a little."""


@dataclass(frozen=True)
class Multiples:
    """Whole numbers times a unit, in place of the scales of a tensor.

    Attributes:
        factor: Whole numbers, one for each scale.
        unit: The scale of what is multiplied with them.
        error: Largest relative error of a scale; 0 where they are exact.
    """

    factor: np.ndarray
    unit: float
    error: float


def multiples(scale: np.ndarray, levels: float, most: float) -> Multiples:
    """Whole multiples of one unit that are the scales, or come near them.

    Exact ones are taken where float32 holds what becomes of them. Else the smallest near ones are taken whose
    errors are small beside those of the quantized values, then the best that there is room for.

    Args:
        scale: Scale of each element; not all are 0.
        levels: The largest integer of the activations that the elements are made of: how precise they are.
        most: The largest factor of which float32 holds all that is made of it.
    """
    exact = whole_multiples(scale)
    if exact is not None and np.abs(exact[0]).max() < most:
        return Multiples(*exact, 0.0)
    largest = float(np.abs(scale).max())
    ratios = np.unique(np.abs(scale[scale != 0]).astype(np.float64) / largest)
    tried = np.arange(1, MAX_MULTIPLE_TRIED + 1, dtype=np.float64)[:, None]
    errors = np.abs(np.rint(tried * ratios) / (tried * ratios) - 1).max(axis=1)
    fitting = errors[: max(1, min(MAX_MULTIPLE_TRIED, int(most * ROOM_SHARE)))]
    wanted = min(MAX_MULTIPLIER_ERROR, MAX_ERROR_IN_STEPS / levels)
    if fitting.min() <= wanted:
        chosen = int(np.argmax(fitting <= wanted))
    elif fitting.min() <= MAX_RELATIVE_ERROR:
        chosen = int(fitting.argmin())
    elif exact is not None:
        return Multiples(*exact, 0.0)  # too large: the verifier says by how much, and where
    else:
        chosen = int(
            np.argmax(errors <= MAX_MULTIPLIER_ERROR)
            if errors.min() <= MAX_MULTIPLIER_ERROR
            else errors.argmin()
        )
    factor = np.rint(scale.astype(np.float64) / largest * (chosen + 1))
    return Multiples(factor, largest / (chosen + 1), float(errors[chosen]))
