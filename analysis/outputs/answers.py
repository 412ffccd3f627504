"""Answers of circuits beside the network's, on inputs that nothing was fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .classes import Kind
from .expectation import Expectation

Z_95 = 1.96
"""Standard errors to either side of an interval of 95 %."""
BOOTSTRAP_DRAWS = 400
"""Resamplings (statistical bootstrap) for the interval of R^2."""


@dataclass(frozen=True)
class Answers:
    """Outputs of circuits on inputs that were held back from their fitting, beside the network's.

    Attributes:
        kind: Kind of the outputs.
        first: (inputs) 1 where the class is the network's; or (outputs, inputs) squared errors of values.
        second: (inputs) loss of accuracy; or (outputs, inputs) values of the network, squared deviations.
        folds: Circuits: each input was held back from its own.
    """

    kind: Kind
    first: np.ndarray
    second: np.ndarray
    folds: int = 1

    @classmethod
    def together(cls, answers: Sequence[Answers]) -> Answers:
        """Those of one circuit after the other, each with its own inputs."""
        first, second = (
            np.concatenate([getattr(a, name) for a in answers], axis=-1) for name in ("first", "second")
        )
        return cls(answers[0].kind, first, second, sum(a.folds for a in answers))

    @property
    def expectation(self) -> Expectation:
        """What is expected on new inputs."""
        count = self.first.shape[-1]
        if self.kind == "classes":
            agreement = float(self.first.mean())
            low, high = wilson(agreement, count)
            error = float(self.second.std() / math.sqrt(count))
            loss = float(self.second.mean())
            return Expectation("classes", count, agreement, low, high, loss, error, self.folds)
        drawn = np.random.default_rng(0).integers(count, size=(BOOTSTRAP_DRAWS, count))
        of_all = float(self._r2(np.arange(count)[None])[0])
        low, high = (float(q) for q in np.quantile(self._r2(drawn), [0.025, 0.975]))
        error = (high - low) / (2 * Z_95)
        return Expectation("values", count, of_all, low, high, 1.0 - of_all, error, self.folds)

    def _r2(self, drawn: np.ndarray) -> np.ndarray:
        """R^2 of all outputs together, each in its own variance, for each row of indices."""
        lost = [
            e[drawn].mean(axis=1) / (s[drawn].mean(axis=1) + 1e-12)
            for e, s in zip(self.first, self.second, strict=True)
        ]
        return np.asarray(1.0 - np.mean(lost, axis=0))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Interval of a share (Wilson, "Probable inference, the law of succession", 1927)."""
    spread = Z_95 * Z_95 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
