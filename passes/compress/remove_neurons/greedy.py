"""Greedy backward removal: the unit whose loss least raises the error that is left after refitting its
readers.

For a reader with weights W fitted to second moments H of its inputs, removing the columns B and refitting the
others raises the squared error by tr(W_B (H^-1_BB)^-1 W_B'), and both W and H^-1 follow by a low-rank update
(Hassibi and Stork, Optimal Brain Surgeon, 1993; for blocks of columns: Frantar and Alistarh, Optimal Brain
Compression, 2022).
"""

from __future__ import annotations

import numpy as np

from .moments import Moments, damping


class Reader:
    """One linear operator that reads units: its weights while its inputs go one after the other.

    Args:
        moments: Moments of its inputs and of what it should produce.
        start: (out, in) its weights; the ridge pulls towards them.
        ridge: Relative to the mean variance of the inputs.
        importance: (out) how much an error in each of its outputs counts.
    """

    def __init__(self, moments: Moments, start: np.ndarray, ridge: float, importance: np.ndarray) -> None:
        size = len(moments.xx)
        damped = moments.xx + damping(moments.xx, ridge) * np.eye(size)
        self.inverse = np.linalg.inv(damped)
        residual = moments.xz - moments.xx @ start.T
        self.weights = start.T + self.inverse @ residual
        self.importance = importance.astype(np.float64).copy()

    def costs(self, blocks: np.ndarray) -> np.ndarray:
        """How much the error rises with each block of columns (units, columns) removed."""
        parts = self.weights[blocks]
        inner = self.inverse[blocks[:, :, None], blocks[:, None, :]]
        raised = np.einsum("uko,uko->uo", parts, np.linalg.solve(inner, parts))
        return np.asarray(np.maximum(raised, 0) @ self.importance)

    def remove(self, block: np.ndarray) -> None:
        """Remove columns and refit the others."""
        step = np.linalg.solve(self.inverse[np.ix_(block, block)], self.inverse[block])
        self.weights -= step.T @ self.weights[block]
        self.inverse -= self.inverse[:, block] @ step
        self.weights[block] = 0
        self.inverse[block] = 0
        self.inverse[:, block] = 0
        # What is gone must not couple with anything any more, and stay invertible.
        self.inverse[block, block] = 1
