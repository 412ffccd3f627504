"""What one bootstrap costs, measured with Concrete's optimizer.

concrete-python 2.11, 128 bits of security, p_error 1e-5 for each lookup; times on one core of an AMD EPYC.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

COMPLEXITY: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0, 26.6), (3, 32.5), (6.5, 40.4), (7.5, 46.9), (11.5, 67.4), (19, 93.4), (23, 115.6)),
    2: ((0, 30.5), (3, 37.3), (6.5, 45.8), (7.5, 51.9), (11.5, 75.3), (19, 102.0), (22.5, 127.0)),
    3: ((0, 43.0), (6, 57.0), (11.5, 83.6), (19, 112.4), (22.5, 139.9), (24.5, 166.7)),
    4: ((0, 73.2), (11, 105.9), (18.5, 138.4), (22, 170.8), (24, 202.1), (25.5, 233.4)),
    5: ((0, 101.4), (11, 147.1), (18, 192.9), (21.5, 238.4), (24, 282.9), (25, 327.4), (26, 371.9)),
    6: ((0, 235.7), (10, 346.2), (17, 399.4), (17.5, 453.1), (20.5, 556.2), (23, 659.1), (24, 762.1)),
    7: ((0, 548.7), (9, 792.5), (16.5, 1036.3), (20, 1280.1), (22, 1522.4), (23, 1758.8), (23.5, 1995.3)),
    8: ((0, 1250.2), (8.5, 1824.6), (15.5, 2385.2), (19, 2940.6), (21, 3489.6), (22, 4028.9), (22.5, 4568.1)),
}
"""By bits of the table: from which demand on (bits, see ``demand``) one bootstrap takes how many millions of
operations."""
WIDE_STEP, WIDE_MOST = 2.0, 6.0
"""What each bit past 8 multiplies by, and all of them together: past 11 bits Concrete goes another way."""
EXTRACTED = 65.0
"""Millions of operations for each bit that exact rounding removes."""
MILLISECONDS = ((27, 12), (32, 14), (48, 15), (79, 19), (116, 24), (502, 99), (1158, 224), (2610, 1000))
"""Measured (complexity in millions, milliseconds on one core)."""


def bootstrap_complexity(bits: int, demand: float = 8.0) -> float:
    """Operations of one bootstrap.

    Args:
        bits: Bits of the table.
        demand: How exact the result has to be, in bits.
    """
    steps = COMPLEXITY[max(1, min(8, bits))]
    place = bisect_right(steps, demand, key=lambda step: step[0]) - 1
    return float(1e6 * steps[max(0, place)][1] * min(WIDE_MOST, WIDE_STEP ** max(0, bits - 8)))


def milliseconds(complexity: float) -> float:
    """Time of one bootstrap of that complexity (operations)."""
    millions, times = zip(*MILLISECONDS, strict=True)
    found = float(np.interp(complexity / 1e6, millions, times))
    return float(found * max(1.0, complexity / 1e6 / millions[-1]))
