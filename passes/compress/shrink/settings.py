"""What ``shrink`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass

MOST_HELD = 400
"""Most calibration samples that are held back."""
OF_VALUES = 2.0
"""Loss of R^2 that is as bad as a loss of 1 in accuracy."""


@dataclass(frozen=True)
class ShrinkSettings:
    """What the search for a smaller network may lose, and how it trains.

    Attributes:
        loss: The most accuracy that may be lost.
        validation_share: Share of the calibration data to judge by.
        weights, activations: Bits, where the network is trained.
    """

    loss: float
    validation_share: float
    weights: int
    activations: int

    def share(self, total: int) -> float:
        """The share of so many calibration samples that is held back, as ``distill`` takes it."""
        return min(self.validation_share, MOST_HELD / total)

    def allowed(self, kind: str) -> float:
        """The most that may be lost: of accuracy where ``kind`` is ``classes``, else of R^2."""
        return self.loss if kind == "classes" else OF_VALUES * self.loss
