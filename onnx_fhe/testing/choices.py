"""Where random decisions come from: a seeded generator, or whatever else can make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")


class Choices(Protocol):
    """Makes the decisions of which a network is the result.

    ``Seeded`` makes them at random. A test that wants small examples can hand them to hypothesis, which then
    shrinks what fails.
    """

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""

    def pick(self, options: Sequence[T]) -> T:
        """One of several."""

    def chance(self, share: float) -> bool:
        """True in that share of all cases."""


class Seeded:
    """Decisions at random: the same ones for the same seed.

    Args:
        seed: A whole number from 0.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(self._random.integers(low, high, endpoint=True))

    def pick(self, options: Sequence[T]) -> T:
        """One of several, each as likely as the others."""
        return options[self.whole(0, len(options) - 1)]

    def chance(self, share: float) -> bool:
        """True in that share of all cases."""
        return bool(self._random.random() < share)
