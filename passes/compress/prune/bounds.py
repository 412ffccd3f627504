"""How much weight a neuron may have so that its accumulator fits a number of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ....analysis.regions.regions import JOINS, POOLS, Regions
from ....ir.graph import LAYOUT, variable_inputs
from ...quantize.weights import largest_code

Bound = Literal["omega", "l1"]


@dataclass(frozen=True)
class Limit:
    """The limit on one layer's neurons.

    Attributes:
        accumulator_bits: Width that the accumulator has to fit.
        weight_bits: Width that the weights will be quantized to.
        input_levels: Largest minus smallest integer that each weight will meet.
        bound: ``omega`` or ``l1``.
        multiplier: Slack; above 1 nothing is guaranteed.
    """

    accumulator_bits: int
    weight_bits: int
    input_levels: int
    bound: Bound
    multiplier: float

    @property
    def omega(self) -> int:
        """Most non-zero weights of a neuron: floor((2^n_max - 1) / ((2^n_weights - 1) (2^n_inputs - 1))).

        As Concrete ML's documentation has it; the multiplier is applied before rounding down.
        """
        each = (2**self.weight_bits - 1) * self.input_levels
        return int((2**self.accumulator_bits - 1) * self.multiplier // each)

    def largest_kept(self, magnitudes: np.ndarray) -> int:
        """How many of a neuron's weights may stay.

        Args:
            magnitudes: Absolute values of its non-zero weights, falling.
        """
        if self.bound == "omega" or not len(magnitudes):
            return min(self.omega, len(magnitudes))
        integers = np.rint(magnitudes / magnitudes[0] * largest_code(self.weight_bits))
        norms = np.cumsum(np.maximum(integers, 0)) * self.input_levels
        budget = (2**self.accumulator_bits - 1) * self.multiplier
        return int(np.searchsorted(norms, budget, side="right"))

    def fits(self, row: np.ndarray) -> bool:
        """Whether the weights (in) of a neuron are within the limit."""
        magnitudes = np.sort(np.abs(row[row != 0]))[::-1]
        return self.largest_kept(magnitudes) >= len(magnitudes)

    @property
    def possible(self) -> bool:
        """Whether a neuron can have any weight at all."""
        return self.largest_kept(np.ones(1)) > 0


def input_levels(value: ir.Value, regions: Regions, inputs: int, activations: int) -> tuple[int, bool]:
    """Largest minus smallest integer of each element that a layer will read.

    Pooling sums its window at the integer level, and additions of two tensors stay sums.

    Args:
        value: The input of a linear layer in the float model.
        regions: Regions of that model.
        inputs: Bits of what the client encrypts.
        activations: Bits of what tables put out.

    Returns:
        The levels, and whether tensors of different scales are added (their multipliers are not known yet).
    """
    producer = value.producer()
    if value in regions.inputs or producer is None:
        return 2**inputs - 1, False
    if value not in regions.quantized:
        if producer.op_type in JOINS:
            parts = [input_levels(v, regions, inputs, activations) for v in variable_inputs(producer)]
            return sum(levels for levels, _ in parts), True
        if producer.op_type in LAYOUT | POOLS and producer.inputs[0] is not None:
            levels, joined = input_levels(producer.inputs[0], regions, inputs, activations)
            return levels * _window(producer), joined
    return 2**activations - 1, False


def _window(node: ir.Node) -> int:
    """How many elements a pooling operator sums."""
    if node.op_type not in POOLS:
        return 1
    if kernel := node.attributes.get_ints("kernel_shape", []):
        return int(np.prod(kernel))
    before, after = (
        int(np.prod([d for d in list(v.shape or [])[1:] if isinstance(d, int)]))
        for v in (node.inputs[0], node.outputs[0])
        if v is not None
    )
    return max(1, before // max(1, after))
