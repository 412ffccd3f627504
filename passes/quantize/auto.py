"""Choosing the widths of weights: the fewest bits whose network still computes what the float model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...analysis.outputs.divergence import output_error, outputs
from ..framework.base import Context

MIN_BITS = 2
"""Narrowest weights of the search."""
LARGE_WEIGHTS = 2_000_000
"""Weights of a network for which trials of every width take too long."""
LARGE_SAMPLES = 8
"""Calibration samples of the trials of such a network."""

Widths = dict[str, int]
"""Bits of the weights by node name."""


@dataclass
class WidthSearch:
    """A search for the widths of the weights, on calibration data alone.

    Attributes:
        model: The float model; not changed.
        data: Calibration inputs.
        layers: Names of the linear nodes whose width is free.
        tolerance: Largest mean squared error of the outputs over their variance.
        max_bits: Most bits of a weight.
        mixed: Whether single layers may have fewer bits than the rest. That pays where a layer's weight
            norm is what makes bootstraps expensive; elsewhere bits of weights cost nothing.
        quantized: Quantizes a model in place with given widths.
        context: For progress.
        halving: Halve the widths that are left with each trial, rather than try them in order.
    """

    model: ir.Model
    data: Mapping[str, np.ndarray]
    layers: Sequence[str]
    tolerance: float
    max_bits: int
    mixed: bool
    quantized: Callable[[ir.Model, Widths], None]
    context: Context
    halving: bool = False
    _wanted: list[np.ndarray] = field(default_factory=list)
    _tried: int = 0

    def run(self) -> tuple[Widths, float]:
        """Find one width for all layers, then lower single layers, first those where that loses least.

        Returns:
            The widths, and the output error that they leave.
        """
        self._wanted = outputs(self.model, self.data)
        bits, error = self._uniform()
        widths = dict.fromkeys(self.layers, bits)
        if not self.mixed or error > self.tolerance or len(self.layers) < 2:
            return widths, error
        lower = {n: {**widths, n: w - 1} for n, w in widths.items() if w > MIN_BITS}
        hurts = {name: self._error(tried) for name, tried in lower.items()}
        for name in sorted(hurts, key=hurts.__getitem__):
            if hurts[name] > self.tolerance:
                break
            tried = {**widths, name: widths[name] - 1}
            now = hurts[name] if widths == dict.fromkeys(self.layers, bits) else self._error(tried)
            if now <= self.tolerance:
                widths, error = tried, now
        return widths, error

    def _halved(self) -> tuple[int, float]:
        found: dict[int, float] = {}
        low, high = MIN_BITS, self.max_bits
        while low < high:
            middle = (low + high) // 2
            found[middle] = self._error(dict.fromkeys(self.layers, middle))
            low, high = (low, middle) if found[middle] <= self.tolerance else (middle + 1, high)
        if low not in found:
            found[low] = self._error(dict.fromkeys(self.layers, low))
        if found[low] <= self.tolerance:
            return low, found[low]
        best = min(found, key=lambda b: (found[b] > 1.05 * min(found.values()), b))
        return best, found[best]

    def _uniform(self) -> tuple[int, float]:
        if self.halving:
            return self._halved()
        found: dict[int, float] = {}
        for bits in range(MIN_BITS, self.max_bits + 1):
            found[bits] = self._error(dict.fromkeys(self.layers, bits))
            if found[bits] <= self.tolerance:
                return bits, found[bits]
            # Past a few bits more of them change nothing: what is left comes from elsewhere.
            earlier = [e for b, e in found.items() if b < bits]
            if len(earlier) > 1 and found[bits] > 0.9 * min(earlier):
                break
        best = min(found, key=lambda b: (found[b] > 1.05 * min(found.values()), b))
        return best, found[best]

    def _error(self, widths: Widths) -> float:
        self._tried += 1
        # The number of trials is not known before; the bar reaches its end when the search does.
        self.context.progress("choose the weights' widths", self._tried, self.max_bits + 2 * len(self.layers))
        tried = self.model.clone()
        self.quantized(tried, widths)
        return output_error(outputs(tried, self.data), self._wanted)
