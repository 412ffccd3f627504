"""How exact a bootstrap's result has to be: what the operators behind it make of its noise.

A bootstrap of P bits costs more the less noise its result may have. That goes by the *required precision*
``log2(norm) + bits``: the noise grows with the 2-norm of what is summed up behind it, against the steps that
the next table, or the decryption, has to tell apart.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir.bits import bits_of
from ...ir.graph import constant_of, once, variable_inputs
from ...ir.ops import Decrypt, Encrypt, TableLookup
from ..regions.linear import linear_of
from .groups import MAX_NARROWED_BITS, group_widths

KEY_SWITCH_BITS = 0.75
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
        if (reader := TableLookup.match(node) or Decrypt.match(node)) is not None:
            power = noise.get(reader.input, 0.0)
            if power > 0:
                ask(reader.input, 0.5 * math.log2(power) + _bits_told_apart(reader, widths))
        else:
            behind = [found[o] for o in node.outputs if o in found]
            for value in variable_inputs(node) if behind else ():
                ask(value, max(behind))
    return found


def output_precisions(model: ir.Model) -> dict[str, float]:
    """The precision that each Decrypt by itself asks of the bootstraps before it, in bits, by its name."""
    noise, widths = _variances(model), group_widths(model)
    return {
        decrypt.name: 0.5 * math.log2(power) + _bits_told_apart(decrypt, widths)
        for decrypt in Decrypt.all_in(model)
        if (power := noise.get(decrypt.input, 0.0)) > 0
    }


def _variances(model: ir.Model) -> dict[ir.Value, float]:
    """Noise of every value, in variances of a bootstrap's result; 0 for what is freshly encrypted."""
    found: dict[ir.Value, float] = {}
    for node in model.graph:
        read = [(v, found.get(v, 0.0)) for v in variable_inputs(node)]
        if Encrypt.match(node):
            noise = 0.0
        elif TableLookup.match(node):
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


def _bits_told_apart(reader: TableLookup | Decrypt, widths: dict[ir.Value, int]) -> float:
    """Bits that a table, or a decryption, has to see right."""
    if isinstance(reader, Decrypt):
        return max(1, bits_of(0, reader.high - reader.low) - reader.lsbs_to_remove)
    if reader.accumulator_bits == reader.table_bits <= MAX_NARROWED_BITS:
        return KEY_SWITCH_BITS + max(reader.table_bits, widths[reader.source])
    # Exact rounding extracts the low bits one by one: each has to be right.
    return KEY_SWITCH_BITS + (reader.accumulator_bits if reader.is_rounded_exactly else reader.table_bits)
