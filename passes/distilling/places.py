"""Where tables will stand in a student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from ...ir.graph import LAYOUT
from ..analysis.linear import linear_of
from .quantizers import FakeActivation, Lattice
from .reading import base_of
from .table import Table

if TYPE_CHECKING:
    from .student import Student


def find_tables(student: Student, bits: int, noise: float) -> list[Table]:
    """The places where tables will stand, in order.

    Args:
        student: Its weights and activations are known.
        bits: P, bits that reach each table.
        noise: Of a bootstrap, in steps of a table.
    """
    found: dict[ir.Value, Table] = {}
    for quantizer in student.quantizers:
        base = base_of(quantizer.source)
        if base in found or not student.encrypted(base):
            continue
        producer = base.producer()
        while producer is not None and producer.op_type in LAYOUT and producer.op_type != "Transpose":
            before = producer.inputs[0]
            producer = before.producer() if before is not None else None
        linear = linear_of(producer) if producer is not None else None
        direct = base.producer() is producer
        if linear is None or not direct:
            found[base] = Table(base, _lattice(base, 1, bits, noise), None, None, None, quantizer)
            continue
        dq = linear.node.inputs[1].producer()  # type: ignore[union-attr]
        weight = student.weights.get(dq) if dq is not None else None
        found[base] = Table(
            base,
            _lattice(base, linear.channel_axis, bits, noise),
            linear,
            weight,
            _feeding(student, linear.node),
            quantizer,
            fresh=not student.behind_table(base),
        )
    return list(found.values())


def _lattice(base: ir.Value, axis: int, bits: int, noise: float) -> Lattice:
    shape = list(base.shape or [])
    size = shape[axis % len(shape)] if len(shape) > 1 else 1
    return Lattice(bits, noise, size if isinstance(size, int) else 1, axis % max(1, len(shape)))


def _feeding(student: Student, node: ir.Node) -> FakeActivation | None:
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer in student.activations:
            return student.activations[producer]
        if producer.op_type not in LAYOUT:
            return None
        value = producer.inputs[0]
    return None
