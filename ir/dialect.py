"""The ``onnx_fhe`` dialect: what ONNX lacks to describe a circuit, as functions that any runtime runs.

Five operators in domain ``onnx_fhe``, version 1. All tensors are float32 that hold integers.

``Encrypt(x; low, high)`` and ``Decrypt(x; low, high)``
    Mark where the encrypted region begins and ends. Their body is the identity; ``low`` and ``high`` declare
    the range of the values that cross (inclusive).
``RoundBits(x; lsbs_to_remove, mode)``
    ``floor(x / 2^t + 1/2) * 2^t`` with ``t = lsbs_to_remove``; ties go up, as in Concrete. ``mode`` is
    ``exact`` or ``approximate``; the body computes the exact form for both.
``TableLookup(x, table, first; step, axis, p_error)``
    ``table[c, (x - first[c]) / step]``: ``table`` is (channels, size), ``first`` is (channels), with 1
    channel for a table shared by the whole tensor, else one for each entry of ``axis``. Without a RoundBits
    in front each entry holds for ``step`` neighbours (the index is rounded down). An index outside the
    table is clamped here (and counted by the reference backend); in a circuit it would wrap. ``p_error`` is
    the error that one lookup is tolerated (0: whatever the circuit is made with); the body makes none.
``PairLookup(x, y, table, first; axis)``
    ``table[c, x - first[0], y - first[1]]``: any function of two encrypted tensors, element by element;
    ``table`` is (channels, values of x, values of y). ``lower-to-lookups`` makes a TableLookup of it.
"""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir
from onnx import defs

from . import dialect_bodies, functions
from .opsets import target_opset

DOMAIN = "onnx_fhe"
VERSION = 1
"""Opset version of the domain."""


def _int(name: str, text: str, default: int) -> defs.OpSchema.Attribute:
    return defs.OpSchema.Attribute(name, onnx.helper.make_attribute(name, default), text)


def _schemas() -> list[defs.OpSchema]:
    def tensor(name: str, text: str) -> defs.OpSchema.FormalParameter:
        return defs.OpSchema.FormalParameter(name, "T", text)

    low_high = [
        _int("low", "Smallest value (inclusive).", 0),
        _int("high", "Largest value (inclusive).", 1),
    ]
    rounding = [
        _int("lsbs_to_remove", "Least significant bits to remove.", 0),
        defs.OpSchema.Attribute("mode", onnx.helper.make_attribute("mode", "exact"), "exact or approximate."),
    ]
    lookup = [
        _int("step", "Distance of the inputs of neighbouring entries.", 1),
        _int("axis", "Axis of the channels when there is more than one table.", 1),
    ]
    tolerated = defs.OpSchema.Attribute(
        "p_error", onnx.helper.make_attribute("p_error", 0.0), "Tolerated error of one lookup; 0 for unsaid."
    )
    x = tensor("x", "Integers held in float32.")
    table = tensor("table", "(channels, size)")
    first = tensor("first", "(channels): the input that selects entry 0.")
    y = tensor("y", "Integers held in float32; x and y broadcast.")
    cells = tensor("table", "(channels, values of x, values of y)")
    starts = tensor("first", "(2): the x and the y that select entry 0.")
    described = [
        ("Encrypt", "Start of the encrypted region.", [x], low_high),
        ("Decrypt", "End of the encrypted region.", [x], low_high),
        ("RoundBits", "Removes least significant bits; ties go up.", [x], rounding),
        (
            "TableLookup",
            "One programmable bootstrap for each element.",
            [x, table, first],
            [*lookup, tolerated],
        ),
        ("PairLookup", "A table of two inputs, element by element.", [x, y, cells, starts], [lookup[1]]),
    ]
    return [
        defs.OpSchema(
            name,
            DOMAIN,
            VERSION,
            doc,
            inputs=inputs,
            outputs=[tensor("y", "Integers held in float32.")],
            type_constraints=[("T", ["tensor(float)"], "float32 that holds integers")],
            attributes=attributes,
        )
        for name, doc, inputs, attributes in described
    ]


def _keeps_shape(context: onnx.shape_inference.InferenceContext) -> None:
    """Shape inference of all operators: the output is like ``x`` (``PairLookup``: where y is no larger)."""
    given = context.get_input_type(0)
    if given is not None:
        context.set_output_type(0, given)


def register() -> None:
    """Register the schemas with onnx, once."""
    for schema in _schemas():
        if defs.has(schema.name, schema.domain):
            continue
        schema.set_type_and_shape_inference_function(_keeps_shape)
        defs.register_schema(schema)


@cache
def function_protos() -> tuple[onnx.FunctionProto, ...]:
    """The bodies, importing the opset that models are kept in; not to be changed."""
    return dialect_bodies.read(target_opset())


def attach(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Add bodies and domain imports of the operators that ``proto`` uses; returns ``proto``.

    Those of the dialect, and those of other domains that have a body (``functions``). In memory a model
    carries no bodies (rewrite rules would edit them); files and sessions do.
    """
    used = {n.op_type for n in proto.graph.node if n.domain == DOMAIN}
    present = {f.name for f in proto.functions if f.domain == DOMAIN}
    if missing := used - present:
        proto.functions.extend(f for f in function_protos() if f.name in missing)
    if used and not any(o.domain == DOMAIN for o in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    functions.attach(proto)
    return proto


def strip(model: ir.Model) -> None:
    """Drop the dialect's bodies from a model that was loaded from a file."""
    for key in [k for k in model.functions if k[0] == DOMAIN]:
        del model.functions[key]


register()
