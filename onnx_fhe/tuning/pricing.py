"""What an integer-level model will cost, before anything is compiled."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..passes.analysis.cost import estimate


@dataclass(frozen=True)
class Price:
    """The cost of one sample.

    Attributes:
        seconds: Latency.
        samples_per_second: Throughput.
        key_bytes: Size of the evaluation keys.
        bootstraps: Programmable bootstraps.
        complexity: Operations.
    """

    seconds: float
    samples_per_second: float
    key_bytes: int
    bootstraps: int
    complexity: float


def price(model: ir.Model, p_error: float) -> Price:
    """Predict what a model costs."""
    found = estimate(model)
    seconds = found.milliseconds / 1000
    return Price(seconds, 1 / max(seconds, 1e-9), 0, found.bootstraps, found.complexity)
