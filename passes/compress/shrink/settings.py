"""What ``shrink`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HELD_BACK = 400
"""Most calibration samples that are held back."""
ALLOWED_R2_LOSS_FACTOR = 2.0
"""How much R^2 a network of values may lose where a classifier may lose an accuracy of 1."""


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
        return min(self.validation_share, MAX_HELD_BACK / total)

    def allowed(self, kind: str) -> float:
        """The most that may be lost: of accuracy where ``kind`` is ``classes``, else of R^2."""
        return self.loss if kind == "classes" else ALLOWED_R2_LOSS_FACTOR * self.loss
