"""Where the ranges of accumulators come from: what a user may ask for, and what holds by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RangeMode = Literal["observed", "sound"]
"""Ranges as calibration data shows them, with a margin; or those that no input can leave."""
RANGE_MODES: tuple[RangeMode, ...] = ("observed", "sound")
Margin = float | Literal["auto"]
AUTO: Literal["auto"] = "auto"
"""Margins of observed ranges, channel by channel, after the tails of the calibration data."""
DEFAULT_RANGE_MODE: RangeMode = "observed"
DEFAULT_MARGIN: Margin = AUTO


@dataclass(frozen=True)
class RangeOptions:
    """Where the ranges of accumulators come from.

    Attributes:
        mode: ``observed`` on calibration data with a margin, or ``sound``.
        margin: Share of the observed range added on each side; ``auto`` for what the tails of the calibration
            data ask for.
    """

    mode: RangeMode = DEFAULT_RANGE_MODE
    margin: Margin = DEFAULT_MARGIN
