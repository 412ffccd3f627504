"""The bit width of a range of integers."""

from __future__ import annotations


def bits_of(low: float, high: float, *, least: int = 1) -> int:
    """Bits that hold every integer of ``low .. high``: two's complement where ``low`` is negative.

    Args:
        low, high: Whole numbers (inclusive).
        least: What a range that holds 0 alone takes: a ciphertext has one bit at least.
    """
    low, high = int(low), int(high)
    if low >= 0:
        return max(least, high.bit_length())
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length())
