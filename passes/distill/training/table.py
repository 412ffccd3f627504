"""A place where a table will stand, as the student knows it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.cost.bootstrap import bootstrap_complexity
from ....analysis.regions.linear import Linear
from .quantizers import FakeActivation, FakeWeight, Lattice
from .reading import Quantizer

FREE_PRECISION = 8.0
"""The precision (bits) that every network has; what it takes up to the next step of the costs is free."""
OUTPUT_BITS = 7
"""Bits of raw outputs that are told apart (see insert-rounding)."""
USED_NORM_SHARE = 0.93
"""Share of the free norm that is used."""


def free_norm(bits: int, raw: bool) -> float:
    """The 2-norm of integer weights up to which the bootstraps in front of them cost no more than plain ones.

    Args:
        bits: Bits of the tables.
        raw: Whether what the weights make is decrypted as it is, and not read by a table.
    """
    plain, precision = bootstrap_complexity(bits, FREE_PRECISION), FREE_PRECISION
    while precision < 2 * FREE_PRECISION and bootstrap_complexity(bits, precision + 0.5) <= plain:
        precision += 0.5
    return float(USED_NORM_SHARE * 2.0 ** (precision - (OUTPUT_BITS if raw else bits)))


@dataclass
class Table:
    """A place where a table will stand.

    Attributes:
        layer: Name of the node that makes what it reads, as users know it.
        base: What it reads.
        lattice: The rounding in front of it.
        linear: The linear operator that makes ``base``; None for sums and the like.
        weight: Its weight.
        activation: The quantizer of what the linear operator reads.
        quantizer: The quantizer that becomes part of the table.
        fresh: Whether the linear operator reads what the client encrypted.
    """

    layer: str
    base: ir.Value
    lattice: Lattice
    linear: Linear | None
    weight: FakeWeight | None
    activation: FakeActivation | None
    quantizer: Quantizer
    fresh: bool = False
