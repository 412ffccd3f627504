"""What a circuit is expected to do on new inputs: plain data, and a sentence about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Expectation:
    """What is expected on new inputs, with an interval of 95 %.

    Attributes:
        kind: ``classes``: shares of equal predictions; ``values``: R^2 against the network.
        samples: Calibration inputs that nothing was fitted to.
        value: Expected share of equal predictions, or R^2.
        low, high: Its interval.
        loss: Expected loss: of accuracy (what a changed class costs is what the network's own probabilities
            say), or 1 minus R^2.
        error: Standard error of ``loss``.
        folds: Circuits that judged: 1, or, where samples are few, one for each part of them, fitted to all
            others (cross-validation).
    """

    kind: Literal["classes", "values"]
    samples: int
    value: float
    low: float
    high: float
    loss: float
    error: float
    folds: int = 1

    def __str__(self) -> str:
        """A sentence, without its full stop."""
        by = f"by {self.samples} calibration inputs that no weight was fitted to"
        if self.folds > 1:
            by = (
                f"by {self.samples} calibration inputs, each asked of one of {self.folds} circuits that were"
                " not fitted to it"
            )
        if self.kind == "values":
            return (
                f"on new inputs an R^2 of {self.value:.3f} against the network is expected ({self.low:.3f} to"
                f" {self.high:.3f}, {by})"
            )
        low, high = (f"{100 * x:.1f}" for x in (self.low, self.high))
        return (
            f"on new inputs {100 * self.value:.1f} % of the predictions are expected to be the network's"
            f" ({low} to {high} %, {by})"
        )
