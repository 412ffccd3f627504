"""What one run of ``quantize`` is asked for: its options, with every choice made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import onnx_ir as ir

Calibration = Literal["min-max", "percentile", "mse"]


@dataclass(frozen=True)
class QuantizationSettings:
    """Options of ``quantize`` (see there) without any ``auto``.

    Attributes:
        weights, activations, inputs: Bits, where ``layers`` says nothing else.
        operands: Most bits of what operators on several encrypted elements read.
        calibration, percentile: How ranges are chosen.
        method, adapt: How weights are rounded, and moved before that.
        accumulator_bits, max_weight_norm: Limits of a layer's integer weights, where there are any.
        refit: Whether gain and bias of each layer are fitted to the float model.
        per_neuron, scales: Which scales there may be.
        layers: Bits of single layers, by node name.
    """

    weights: int
    activations: int
    inputs: int
    operands: int
    calibration: Calibration
    percentile: float
    method: Literal["nearest", "gptq", "descent"]
    adapt: float
    accumulator_bits: int | None
    max_weight_norm: float | None
    refit: bool
    per_neuron: bool
    scales: Literal["free", "power-of-two"]
    layers: Mapping[str, Mapping[str, Any]]

    def bits(self, what: Literal["weights", "activations", "inputs"], *nodes: ir.Node | None) -> int:
        """Width for the first of ``nodes`` that ``layers`` names, else the general one."""
        for node in nodes:
            if node is not None and what in self.layers.get(node.name or "", {}):
                return int(self.layers[node.name or ""][what])
        return int(getattr(self, what))

    def with_weights(self, widths: Mapping[str, int], inputs: int) -> QuantizationSettings:
        """These settings with the bits of each layer's weights (by node name) and of the inputs decided."""
        layers = {n: {**self.layers.get(n, {}), "weights": w} for n, w in widths.items()}
        return replace(
            self,
            weights=max(widths.values(), default=8),
            inputs=inputs,
            layers={**self.layers, **layers},
        )
