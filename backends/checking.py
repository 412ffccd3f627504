"""Comparing a circuit with the integer model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..ir.errors import LoweringMismatchError
from ..ir.partition import partition
from .base import Circuit
from .reference import run_counting


@dataclass(frozen=True)
class Comparison:
    """What was compared.

    Attributes:
        samples: Samples on which circuit and model agree.
        skipped: Samples with an overflow: there the model clamps and the circuit wraps.
    """

    samples: int
    skipped: int


def check_against(model: ir.Model, circuit: Circuit, values: Mapping[str, np.ndarray]) -> Comparison:
    """Compare the circuit's clear evaluation with ``model`` (integer level) in onnxruntime, value by value.

    Args:
        model: The whole model.
        circuit: What it was lowered to.
        values: Integers by Encrypt output name, samples on axis 0.

    Raises:
        LoweringMismatchError: They differ in a value of a sample without overflow.
    """
    server = partition(model).server
    report, outputs = run_counting(server, values)
    overflows = report.by_sample
    inside = np.flatnonzero(overflows == 0)
    kept = {k: np.asarray(v)[inside] for k, v in values.items()}
    if len(inside) == 0:
        return Comparison(0, len(overflows))
    found = circuit.clear(kept)
    for name, array in outputs.items():
        wanted = array[inside]
        wrong = np.argwhere(found[name] != wanted)
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            raise LoweringMismatchError(
                "the circuit and the integer model disagree",
                found=f"{len(wrong)} of {wanted.size} values of {name!r}; at {place} the circuit has "
                f"{found[name][place]} and the model {wanted[place]:g}",
                allowed="the same integers",
            )
    return Comparison(len(inside), len(overflows) - len(inside))
