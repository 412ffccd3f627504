"""Ridge regression of what a network says on features, from sums that are kept once for many sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import Self

ROWS_AT_ONCE = 1024
"""Samples whose products are added up in single precision before they join the sums in double."""
QUANTIZATION_STEP = 2.0 / 255.0
"""Of features within [-1, 1] that are encrypted with 8 bits."""

WEIGHT_BITS = 6
"""Bits of the integer weights that readouts are judged with: the presets have as many."""


@dataclass(frozen=True)
class Readout:
    """A linear function of features.

    Attributes:
        weights: (outputs, features).
        bias: (outputs).
    """

    weights: np.ndarray
    bias: np.ndarray

    def rounded(self) -> Readout:
        """With weights of ``WEIGHT_BITS``, each output's with a scale of its own, as the circuit has them."""
        steps = np.abs(self.weights).max(axis=1, keepdims=True) / (2 ** (WEIGHT_BITS - 1) - 1)
        steps = np.where(steps > 0, steps, 1.0)
        return Readout(np.rint(self.weights / steps) * steps, self.bias)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(samples, outputs) of (samples, features)."""
        return np.asarray(features @ self.weights.T.astype(np.float32) + self.bias.astype(np.float32))


@dataclass(frozen=True)
class Sums:
    """Sums over samples of features f and of what is to be read out of them, y.

    Attributes:
        squares: (features, features) of f f'.
        products: (features, outputs) of f y'.
        features, outputs: (features) of f, and (outputs) of y.
        count: Samples.
    """

    squares: np.ndarray
    products: np.ndarray
    features: np.ndarray
    outputs: np.ndarray
    count: int

    @classmethod
    def of(cls, features: np.ndarray, outputs: np.ndarray) -> Self:
        """The sums over (samples, features), float32, and (samples, outputs)."""
        wanted = outputs.astype(np.float32)
        squares = np.zeros((features.shape[1], features.shape[1]))
        products = np.zeros((features.shape[1], outputs.shape[1]))
        for start in range(0, len(features), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            squares += features[rows].T @ features[rows]
            products += features[rows].T @ wanted[rows]
        first, second = (a.sum(axis=0, dtype=np.float64) for a in (features, outputs))
        return cls(squares, products, first, second, len(features))

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, 1)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, -1)

    def _with(self, other: Sums, sign: int) -> Sums:
        return Sums(
            self.squares + sign * other.squares,
            self.products + sign * other.products,
            self.features + sign * other.features,
            self.outputs + sign * other.outputs,
            self.count + sign * other.count,
        )

    def fit(self, penalty: float, columns: np.ndarray) -> Readout:
        """The readout of some of the features.

        What quantizing each feature adds to its variance is in the penalty: weights that lean on differences
        of nearly equal features would drown in it.

        Args:
            penalty: Of the squares of weights, over the mean variance of a feature.
            columns: Indices of the features.
        """
        means, wanted = self.features[columns] / self.count, self.outputs / self.count
        moments = self.squares[np.ix_(columns, columns)] / self.count - np.outer(means, means)
        products = self.products[columns] / self.count - np.outer(means, wanted)
        varied = penalty * moments.trace() / len(moments)
        moments[np.diag_indices(len(moments))] += varied + QUANTIZATION_STEP**2 / 12
        weights = np.linalg.solve(moments, products).T
        return Readout(weights, wanted - weights @ means)
