"""How far the outputs of two models are apart on calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime

MINOR = 0.05
"""Share of the largest spread, below which a number is not measured by its own."""


def outputs(model: ir.Model, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph outputs on all samples, in order."""
    return list(runtime.Session(model).run_batched(data).values())


def output_error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Mean squared error over variance of the wanted outputs, the worst of all outputs.

    An output that holds integers (a class, say) counts the share of samples that differ.
    """
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if not np.issubdtype(b.dtype, np.floating):
            worst = max(worst, float(np.mean(a != b)))
            continue
        spread = float(((b - b.mean(axis=0, keepdims=True)) ** 2).mean())
        error = float(((a.astype(np.float64) - b) ** 2).mean())
        worst = max(worst, error / spread if spread > 0 else error)
    return worst


def worst_error(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Mean squared error over variance of the worst number (column of an output), of those that vary.

    An output that holds integers (a class, say) counts the share of samples that differ.
    """
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if not np.issubdtype(b.dtype, np.floating):
            worst = max(worst, float(np.mean(a != b)))
            continue
        flat = b.reshape(len(b), -1).astype(np.float64)
        error = ((a.reshape(len(a), -1) - flat) ** 2).mean(axis=0)
        spread = flat.var(axis=0)
        counts = spread > MINOR**2 * spread.max(initial=0.0)
        if counts.any():
            worst = max(worst, float((error[counts] / spread[counts]).max()))
    return worst
