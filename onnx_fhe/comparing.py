"""The finished circuit against the integer model that it was made from: they must be the same."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir

from .backends.base import Circuit
from .backends.checking import check_against
from .backends.sides import Progress
from .ir.batch_runner import Arrays
from .ir.partition import partition
from .prologue import Prologue

MAX_COMPARING_SECONDS = 20.0
"""Comparing circuit and model stops after this long, at whatever sample it is."""


def compare(model: ir.Model, circuit: Circuit, data: Arrays, samples: int, progress: Progress) -> list[str]:
    """Compare circuit and model on up to ``samples`` samples, as many as there is time for; notes about it.

    Raises:
        LoweringMismatchError: They differ.
    """
    given = {k: v[:samples] for k, v in data.items()}
    values: dict[str, np.ndarray] = Prologue(partition(model)).run(given)[0]
    total = len(next(iter(values.values())))
    began, done, skipped, size = time.perf_counter(), 0, 0, 4
    while done < total and size:
        progress("compare circuit and model", done, total)
        found = check_against(model, circuit, {k: v[done : done + size] for k, v in values.items()})
        done, skipped = min(done + size, total), skipped + found.skipped
        spent = time.perf_counter() - began
        # As many more as there is time for, but with a look at the clock on the way.
        size = min(4 * size, int(done * max(MAX_COMPARING_SECONDS - spent, 0) / spent))
    progress("compare circuit and model", total, total)
    notes = []
    if done < total:
        notes.append(
            f"circuit and integer model were compared on {done} of {total} samples, for it takes long"
        )
    if skipped:
        notes.append(f"{skipped} of {done} calibration samples overflow in the integer model")
    return notes
