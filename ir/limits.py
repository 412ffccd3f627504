"""What a target takes: numbers that passes aim for and that are checked before compilation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TargetLimits:
    """Limits of a backend.

    Attributes:
        name: The backend.
        table_bits: Most bits of a table's input (after rounding).
        rounded_accumulator_bits: Most bits of an accumulator in front of a RoundBits.
        output_bits: Most bits of a raw output.
        rounded_table_bits: Most bits that may be left after rounding.
        exact_integer_bits: Integers up to this many bits are exact in the model's float32.
        comfortable_table_bits: Past this a bootstrap costs several times as much (presets stay below).
    """

    name: str = "concrete"
    table_bits: int = 16
    rounded_accumulator_bits: int = 24
    output_bits: int = 20
    rounded_table_bits: int = 8
    exact_integer_bits: int = 24
    comfortable_table_bits: int = 5
