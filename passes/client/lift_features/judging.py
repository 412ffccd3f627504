"""What readouts lose, on inputs that they were not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....analysis.outputs.answers import Answers
from ....analysis.outputs.classes import Kind, foreseen_loss


@dataclass(frozen=True)
class Asked:
    """What the network says of some inputs, and what was read out.

    Attributes:
        wanted: (samples, outputs) of the network.
        found: (samples, outputs) read out.
    """

    wanted: np.ndarray
    found: np.ndarray

    def loss(self, kind: Kind) -> float:
        """Of accuracy as the network's own probabilities foresee it, or 1 minus R^2."""
        if not len(self.wanted):
            return 0.0
        if kind == "classes":
            return float(_lost(self.wanted, self.found).mean())
        errors = ((self.found - self.wanted) ** 2).mean(axis=0)
        return float(np.mean(errors / (self.wanted.var(axis=0) + 1e-12)))

    @classmethod
    def together(cls, several: Sequence[Asked]) -> Asked:
        """All of them as one."""
        return cls(*(np.concatenate([getattr(a, name) for a in several]) for name in ("wanted", "found")))


def answers(asked: Asked, kind: Kind, folds: int) -> Answers:
    """What to expect on new inputs, from given ones asked of readouts that were not fitted to them."""
    if kind == "classes":
        same = asked.wanted.argmax(axis=1) == asked.found.argmax(axis=1)
        return Answers(kind, same.astype(np.float64), _lost(asked.wanted, asked.found), folds)
    wanted = asked.wanted.astype(np.float64)
    errors, spreads = (asked.found - wanted) ** 2, (wanted - wanted.mean(axis=0)) ** 2
    return Answers(kind, errors.mean(axis=1)[None], spreads.mean(axis=1)[None], folds)


def _lost(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    shifted = np.exp(wanted - wanted.max(axis=1, keepdims=True))
    likely = shifted / shifted.sum(axis=1, keepdims=True)
    return foreseen_loss(likely, wanted.argmax(axis=1), found.argmax(axis=1))
