"""Where tables will stand in a student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import onnx_ir as ir

from ....analysis.regions.linear import linear_of
from ....ir.graph import LAYOUT, layer_of, title_of
from .quantizers import FakeActivation, FakeWeight, Lattice
from .reading import Quantizer, base_of
from .table import Table

Bits = Callable[[str], int]
"""P, bits that reach the table behind a layer of this name; 0 for no rounding."""


class Network(Protocol):
    """What has to be known of a student before its tables are.

    Attributes:
        quantizers: Quantizers of its activations, in order.
        weights, activations: Its trained parts, by their DequantizeLinear.
    """

    quantizers: list[Quantizer]
    weights: dict[ir.Node, FakeWeight]
    activations: dict[ir.Node, FakeActivation]

    def encrypted(self, value: ir.Value) -> bool:
        """Whether a tensor is computed encrypted."""
        ...

    def behind_table(self, value: ir.Value) -> bool:
        """Whether a bootstrap stands somewhere before a tensor."""
        ...


def find_tables(student: Network, bits: Bits, noise: float) -> list[Table]:
    """The places where tables will stand, in order; in front of those of 0 bits is no rounding.

    Args:
        student: Its weights and activations are known.
        bits: That reach them.
        noise: Noise of a bootstrap, in steps of a table.
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
        layer = _layer(base) if linear is None else str(linear.node.name)
        if linear is None or not direct:
            lattice = _lattice(base, 1, bits(layer), noise)
            found[base] = Table(layer, base, lattice, None, None, None, quantizer)
            continue
        dq = linear.node.inputs[1].producer()  # type: ignore[union-attr]
        weight = student.weights.get(dq) if dq is not None else None
        found[base] = Table(
            layer,
            base,
            _lattice(base, linear.channel_axis, bits(layer), noise),
            linear,
            weight,
            _feeding(student, linear.node),
            quantizer,
            fresh=not student.behind_table(base),
        )
    return list(found.values())


def _layer(base: ir.Value) -> str:
    node = layer_of(base) or base.producer()
    return str(base.name) if node is None else title_of(node)[0]


def _lattice(base: ir.Value, axis: int, bits: int, noise: float) -> Lattice:
    shape = list(base.shape or [])
    size = shape[axis % len(shape)] if len(shape) > 1 else 1
    return Lattice(bits, noise, size if isinstance(size, int) else 1, axis % max(1, len(shape)))


def _feeding(student: Network, node: ir.Node) -> FakeActivation | None:
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer in student.activations:
            return student.activations[producer]
        if producer.op_type not in LAYOUT:
            return None
        value = producer.inputs[0]
    return None
