"""How one table is rounded."""

from __future__ import annotations

from dataclasses import dataclass

from .fill import Fill


@dataclass(frozen=True, order=True)
class RoundingSetting:
    """How one table is rounded. In order of what a bootstrap then costs: each step is about a fifth more.

    Attributes:
        bits: Bits that reach the table; 0 for no rounding.
        fill: Whether channels are multiplied to fill the range (``free`` < ``full``).
    """

    bits: int
    fill: Fill
