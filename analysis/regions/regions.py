"""Which part of a float model will run encrypted, and where a quantizer has to stand.

A tensor of the encrypted part is one of

- an *activation*: small integers times a scale, the output of a quantizer (or a sum of such, which is an
  accumulator where a table of several elements reads it and it has grown by more than a bit);
- an *accumulator*: a linear combination of activations, or a product of two, wide, exact;
- a *function*: what element-wise operators make of one activation or accumulator, its *base*, or of a pair
  of activations. It costs nothing until somebody needs it as integers: then it becomes one table.

Linear operators eat activations, and so do products, maxima and functions of a pair. What a quantizer is
needed for follows from that alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import onnx_ir as ir

POOLS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
"""Operators that average or add up elements of one tensor."""
JOINS = frozenset({"Add", "Sub"})
"""Operators that add two encrypted tensors."""
PRODUCTS = frozenset({"MatMul", "Mul"})
"""Operators that may multiply two encrypted tensors."""


class Kind(Enum):
    """What a tensor of the encrypted part is."""

    ACTIVATION = "activation"
    ACCUMULATOR = "accumulator"
    FUNCTION = "function"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the encrypted part; ``base`` is what it is a function of (itself unless a function)."""

    kind: Kind
    base: ir.Value


@dataclass
class Regions:
    """The result of ``find_regions``.

    Attributes:
        server: The nodes that run encrypted, in order.
        inputs: Tensors computed by the client that encrypted nodes read; they are quantized there.
        quantized: Functions and accumulators that need a quantizer; each is one table lookup for each
            element.
        tensors: What each tensor of the encrypted part is.
        bases: What each quantized tensor is a function of: the accumulator (or activation) in front of its
            table.
        shared_scale: Groups of quantized tensors that meet in an addition and so must share a scale.
        concatenated: Groups of quantized tensors that are laid side by side: where the next layers do not
            absorb their scales they must share one.
        operands: Quantized tensors that operators on several encrypted elements (maxima, products) read.
        paired: Quantized tensors that are read by functions of a pair: one table tells all pairs apart.
        joins: Additions that an accumulator takes part in.
        results: In a network that is encrypted whole: functions that leave the encrypted part, quantized.
        settling: Operators but linear ones that read accumulators in their quantized form.
    """

    server: list[ir.Node]
    inputs: list[ir.Value] = field(default_factory=list)
    quantized: list[ir.Value] = field(default_factory=list)
    tensors: dict[ir.Value, Tensor] = field(default_factory=dict)
    bases: dict[ir.Value, ir.Value] = field(default_factory=dict)
    shared_scale: list[set[ir.Value]] = field(default_factory=list)
    concatenated: list[set[ir.Value]] = field(default_factory=list)
    operands: set[ir.Value] = field(default_factory=set)
    paired: set[ir.Value] = field(default_factory=set)
    joins: list[ir.Node] = field(default_factory=list)
    results: set[ir.Value] = field(default_factory=set)
    settling: set[ir.Node] = field(default_factory=set)
