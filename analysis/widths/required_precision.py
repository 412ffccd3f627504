"""How exact a bootstrap's result has to be: what the operators behind it make of its noise.

A bootstrap of P bits is dearer the less noise its result may have. That goes by the *required precision*
``log2(norm) + bits``: the noise grows with the 2-norm of what is summed up behind it, against the steps that
the next table, or the decryption, has to tell apart.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir.graph import constant_of, int_of, is_dialect, once, variable_inputs
from ..regions.linear import linear_of
from .groups import NARROWED, before_rounding, group_widths
from .table_width import table_width

SWITCHED = 0.75
"""Bits that a table asks for besides: the key and modulus switches in front of it add noise of their own."""


def required_precisions(model: ir.Model) -> dict[ir.Value, float]:
    """The precision, in bits, that is asked for behind each TableLookup, and behind all values between.

    Args:
        model: Integer level.
    """
    noise, widths = _variances(model), group_widths(model)
    found: dict[ir.Value, float] = {}

    def ask(value: ir.Value | None, precision: float) -> None:
        if value is not None and constant_of(value) is None:
            found[value] = max(found.get(value, 0.0), precision)

    for node in reversed(list(model.graph)):
        source = node.inputs[0] if node.inputs else None
        if is_dialect(node, "TableLookup", "Decrypt") and source is not None:
            power = noise.get(source, 0.0)
            if power > 0:
                ask(source, 0.5 * math.log2(power) + _bits_told_apart(node, widths))
        else:
            behind = [found[o] for o in node.outputs if o in found]
            for value in variable_inputs(node) if behind else ():
                ask(value, max(behind))
    return found


def output_precisions(model: ir.Model) -> dict[str, float]:
    """The precision that each Decrypt by itself asks of the bootstraps before it, in bits, by its name."""
    noise, widths = _variances(model), group_widths(model)
    found = {}
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        if is_dialect(node, "Decrypt") and source is not None and noise.get(source, 0.0) > 0:
            found[str(node.name)] = 0.5 * math.log2(noise[source]) + _bits_told_apart(node, widths)
    return found


def _variances(model: ir.Model) -> dict[ir.Value, float]:
    """Noise of every value, in variances of a bootstrap's result; 0 for what is freshly encrypted."""
    found: dict[ir.Value, float] = {}
    for node in model.graph:
        read = [(v, found.get(v, 0.0)) for v in variable_inputs(node)]
        if is_dialect(node, "Encrypt"):
            noise = 0.0
        elif is_dialect(node, "TableLookup"):
            noise = 1.0
        else:
            noise = _gain(node) * _together(node, read)
        found.update(dict.fromkeys(node.outputs, noise))
    return found


def _together(node: ir.Node, read: list[tuple[ir.Value, float]]) -> float:
    powers = [p for _, p in read]
    if node.op_type in {"Add", "Sub"} and len(node.inputs) == 2:
        # The same tensor twice: its noise adds up as it is, not as that of two.
        return 4 * powers[0] if node.inputs[0] is node.inputs[1] else sum(powers)
    return max(powers, default=0.0)


def _gain(node: ir.Node) -> float:
    """What an operator with constants makes of a variance."""
    linear = linear_of(node)
    if linear is not None:
        found = once(
            linear.source,
            f"power of {node.op_type}",
            lambda _: float((linear.matrix() ** 2).sum(axis=1).max()),
        )
        return float((linear.matrix() ** 2).sum(axis=1).max()) if found is None else found
    if node.op_type == "Mul":
        factors = [c for v in node.inputs if (c := constant_of(v)) is not None]
        return math.prod(float((f.astype(np.float64) ** 2).max()) for f in factors if f.size)
    if node.op_type == "ReduceSum" and node.inputs[0] is not None:
        return max(1.0, _elements(node.inputs[0]) / max(1, _elements(node.outputs[0])))
    return 1.0


def _elements(value: ir.Value) -> int:
    return math.prod(d for d in list(value.shape or [])[1:] if isinstance(d, int))


def _bits_told_apart(node: ir.Node, widths: dict[ir.Value, int]) -> float:
    """Bits that a table, or a decryption, has to see right."""
    if node.op_type == "TableLookup":
        width = table_width(node)
        # Exact rounding extracts the low bits one by one: each has to be right.
        exact = width.bootstraps > width.lookups
        if width.accumulator_bits == width.table_bits <= NARROWED:
            return SWITCHED + max(width.table_bits, widths[before_rounding(node)])
        return SWITCHED + (width.accumulator_bits if exact else width.table_bits)
    span = int_of(node, "high", 0) - int_of(node, "low", 0)
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    rounds = producer is not None and is_dialect(producer, "RoundBits")
    removed = int_of(producer, "lsbs_to_remove", 0) if producer is not None and rounds else 0
    return max(1, math.ceil(math.log2(span + 1)) - removed)
