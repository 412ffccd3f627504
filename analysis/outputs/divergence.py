"""How far the outputs of two models are apart on calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime

MINOR_SPREAD_SHARE = 0.05
"""A number whose spread is below this share of the largest spread is not measured by its own spread."""
USUAL_SIZES = 1e-12, 1e12
"""Where the largest output lies between these, its square is an ordinary float32."""


def outputs(model: ir.Model, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph outputs on all samples, in order."""
    return list(runtime.Session(model).run_batched(data).values())


def output_error(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Mean squared error over variance of the wanted outputs, the worst of all outputs.

    An output that holds integers (a class, say) counts the share of samples that differ.
    """
    return max((_of_all(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)


def worst_error(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """``output_error`` of the worst number (column of an output), of those that vary."""
    return max((_of_columns(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)


def _of_all(found: np.ndarray, wanted: np.ndarray) -> float:
    if not np.issubdtype(wanted.dtype, np.floating):
        return float(np.mean(found != wanted))
    largest = float(np.abs(wanted).max(initial=0))
    if largest > 0 and not USUAL_SIZES[0] < largest < USUAL_SIZES[1]:
        found, wanted = (a.astype(np.float64) / largest for a in (found, wanted))
    spread = float(((wanted - wanted.mean(axis=0, keepdims=True)) ** 2).mean())
    error = float(((found.astype(np.float64) - wanted) ** 2).mean())
    return error / spread if spread > 0 else error


def _of_columns(found: np.ndarray, wanted: np.ndarray) -> float:
    if not np.issubdtype(wanted.dtype, np.floating):
        return _of_all(found, wanted)
    flat = wanted.reshape(len(wanted), -1).astype(np.float64)
    error = ((found.reshape(len(found), -1) - flat) ** 2).mean(axis=0)
    spread = flat.var(axis=0)
    counts = spread > MINOR_SPREAD_SHARE**2 * spread.max(initial=0.0)
    return float((error[counts] / spread[counts]).max(initial=0.0))
