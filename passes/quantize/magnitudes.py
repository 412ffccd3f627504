"""Layers whose numbers are near the ends of what floats hold: they are quantized in other units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

USUAL_SIZES = 1e-12, 1e12
"""Where the largest number of a tensor lies between these, squares and sums of them are ordinary floats."""


@dataclass(frozen=True)
class Magnitudes:
    """Units of a layer's inputs and outputs: powers of two, by which floats are divided exactly.

    Attributes:
        inputs, outputs: 1 for numbers of usual size.
    """

    inputs: float = 1.0
    outputs: float = 1.0

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], wanted: np.ndarray) -> Magnitudes:
        """The units in which the largest input and the largest output are about 1."""
        return cls(
            _unit(max(float(np.abs(r).max(initial=0)) for r in rows)), _unit(np.abs(wanted).max(initial=0))
        )

    @property
    def weights(self) -> float:
        """What weights are multiplied with, so that they make outputs of inputs in these units."""
        return self.inputs / self.outputs

    def applied(self, rows: Sequence[np.ndarray], wanted: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Inputs and outputs in these units."""
        if self.inputs != 1:
            rows = [r.astype(np.float64) / self.inputs for r in rows]
        return list(rows), wanted if self.outputs == 1 else wanted.astype(np.float64) / self.outputs

    def back(self, scale: np.ndarray) -> np.ndarray:
        """Scales of weights in these units as those of the weights themselves; none is 0 as a float32."""
        if self.weights == 1:
            return scale
        return np.maximum(scale / self.weights, float(np.finfo(np.float32).smallest_subnormal))


def _unit(largest: float) -> float:
    low, high = USUAL_SIZES
    return 1.0 if largest == 0 or low <= largest <= high else float(2.0 ** np.floor(np.log2(largest)))
