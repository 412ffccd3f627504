"""Ask Concrete's optimizer what one bootstrap takes, by width, required precision and error; write the table.

    python benchmarks/optimizer_table.py

The cost model (analysis/cost/bootstrap.py) reads the result, analysis/cost/optimizer.json. Run it again
when another version of concrete-python chooses other parameters; it takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnx_fhe.backends.concrete.probe import Probe, chosen, compile_probe
from onnx_fhe.ir.errors import LimitError
from onnx_fhe.ir.paths import write_bytes

OUT = Path(__file__).resolve().parent.parent / "passes" / "analysis" / "optimizer.json"
P_ERRORS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5, 1e-7, 2**-40)
BITS = range(1, 9)
MOST, COARSE, FINE = 27.0, 3.0, 0.5
"""Demands up to the first are looked at, in steps of the second, and where they differ down to the third."""


@cache
def ask(bits: int, precision: float, p_error: float) -> tuple[float, ...] | None:
    """Complexity in millions, then the parameters; None where Concrete has none."""
    try:
        circuit = compile_probe(Probe(bits, precision, p_error))
        bootstrap, keyswitch = chosen(circuit)
    except LimitError:
        return None
    return (
        round(circuit.complexity / 1e6, 1),
        *dataclasses.astuple(bootstrap),
        keyswitch.level,
        keyswitch.base_log,
    )


def steps(bits: int, p_error: float) -> list[float]:
    """Demands from which on a bootstrap costs more."""
    found = [0.0]

    def refine(low: float, high: float) -> None:
        if ask(bits, low, p_error) == ask(bits, high, p_error):
            return
        if high - low <= FINE:
            found.append(high)
            return
        middle = (low + high) / 2
        refine(low, middle)
        refine(middle, high)

    at = 0.0
    while at < MOST:
        refine(at, at + COARSE)
        at += COARSE
    return found


def main() -> None:
    """Write the table."""
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    table: list[dict[str, Any]] = []
    for p_error in P_ERRORS:
        for bits in BITS:
            rows: list[list[float]] = []
            for precision in steps(bits, p_error):
                found = ask(bits, precision, p_error)
                # Half a step earlier: the change lies between this precision and the one before.
                if found is not None and (not rows or found[0] > rows[-1][1]):
                    rows.append([max(0.0, precision - FINE / 2), *found])
            table.append({"p_error": p_error, "bits": bits, "rows": rows})
            print(p_error, bits, len(rows), flush=True)
    lines = ",\n".join(json.dumps(entry) for entry in table)
    text = f'{{"concrete": "{version("concrete-python")}", "table": [\n{lines}\n]}}\n'
    write_bytes(OUT, text.encode())


if __name__ == "__main__":
    main()
