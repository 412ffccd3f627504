"""What bringing an accumulator back to few bits costs between two linear operators, by Concrete's prediction.

    python benchmarks/requantization.py

Three ways: a table behind approximate rounding (one bootstrap), exact rounding alone (what scales that are
powers of two allow: no table), and nothing (the next linear operator takes the wide accumulator).
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

ELEMENTS = 4
"""Elements that are requantized; as many lookups come before."""


def cost(way: str, bits: int, removed: int) -> tuple[float, int]:
    """Millions of operations, and bootstraps, for one circuit.

    Args:
        way: ``table``, ``rounding`` or ``nothing``.
        bits: Bits that are left.
        removed: Bits that are rounded away.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from concrete import fhe

    top = 2 ** (bits + removed) - 1 - 2 ** (removed - 1)
    first = fhe.LookupTable([i % 4 for i in range(8)])
    identity = fhe.LookupTable([i >> removed << removed for i in range(2 ** (bits + removed))])
    ones = np.ones((ELEMENTS, ELEMENTS), np.int64)

    def circuit(x):  # type: ignore[no-untyped-def]
        y = first[x] @ (ones * max(1, top // (3 * ELEMENTS)))
        exactness = fhe.Exactness.EXACT if way == "rounding" else fhe.Exactness.APPROXIMATE
        if way != "nothing":
            y = fhe.round_bit_pattern(y, lsbs_to_remove=removed, exactness=exactness)
        return (identity[y] if way == "table" else y) @ ones

    samples = [np.zeros(ELEMENTS, np.int64), np.full(ELEMENTS, 3), np.full(ELEMENTS, 7)]
    settings = fhe.Configuration(p_error=1e-5, dump_artifacts_on_unexpected_failures=False)
    compiled = fhe.Compiler(circuit, {"x": "encrypted"}).compile(samples, settings)
    return compiled.complexity / 1e6, compiled.programmable_bootstrap_count


def main() -> int:
    """Print the table."""
    print("| bits left, removed | table | rounding alone | nothing |")
    print("| --- | --- | --- | --- |")
    for bits in (4, 6):
        for removed in (1, 2, 4):
            found = [cost(way, bits, removed) for way in ("table", "rounding", "nothing")]
            cells = " | ".join(f"{millions:.0f} M, {count} PBS" for millions, count in found)
            print(f"| {bits}, {removed} | {cells} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
