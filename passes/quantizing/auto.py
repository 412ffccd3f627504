"""Choosing the width of the weights: the fewest bits that still compute what the float model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from ..analysis.divergence import output_error, outputs
from ..base import Context

FEWEST = 2
PLAIN_INPUTS, FINE_INPUTS = 6, 8
"""Input bits cost no bootstraps. Where weights need 5 bits and more, inputs are few or the network steep."""


def input_bits(weights: int) -> int:
    """Bits of the inputs that go with a width of the weights."""
    return PLAIN_INPUTS if weights <= 4 else FINE_INPUTS


def choose_weights(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    budget: tuple[float, int],
    context: Context,
    quantized: Callable[[ir.Model, int], None],
) -> tuple[int, float]:
    """Try widths from small to large until the outputs are as near the float model's as the budget asks.

    Args:
        model: The float model; not changed.
        data: Calibration inputs.
        budget: Largest mean squared error over variance of the outputs, and most bits.
        context: For progress.
        quantized: Quantizes a model in place with a given width of the weights.

    Returns:
        The width, and the error that it leaves.
    """
    (tolerance, most), wanted = budget, outputs(model, data)
    found: dict[int, float] = {}
    for bits in range(FEWEST, most + 1):
        context.progress("choose the weights' width", bits - FEWEST, most - FEWEST + 1)
        tried = model.clone()
        quantized(tried, bits)
        found[bits] = output_error(outputs(tried, data), wanted)
        if found[bits] <= tolerance:
            return bits, found[bits]
        # Past a few bits more of them change nothing: what is left comes from elsewhere.
        if bits >= FEWEST + 2 and found[bits] > 0.9 * min(found[b] for b in found if b < bits):
            break
    best = min(found, key=lambda b: (found[b] > 1.05 * min(found.values()), b))
    return best, found[best]
