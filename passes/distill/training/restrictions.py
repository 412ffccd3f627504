"""What weights may be while the student trains: zeros that stand, and sums that accumulators hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch

from ....analysis.regions.linear import linear_of
from ....ir.errors import LimitError
from ....ir.graph import constant_of
from ...quantize.units import Units
from .quantizers import Budget, FakeWeight
from .reading import weight_nodes
from .student import Student


def meant_zeros(model: ir.Model, before: ir.Model | None, *, every: bool) -> dict[str, np.ndarray]:
    """Weights of each layer that are to stay zero, by its name: bool arrays of the shape of the weight.

    Args:
        model: A model of the qdq level.
        before: The float model that was quantized: its zeros were meant. None where it is not known.
        every: All weights stay zero that are, also those that quantization made zero.
    """
    meant = (
        {} if before is None else {n.name: linear.weight for n in before.graph if (linear := linear_of(n))}
    )
    found = {}
    for node, dq in weight_nodes(model):
        codes = constant_of(dq.inputs[0])
        assert codes is not None
        zero = codes == 0 if every else np.zeros(codes.shape, bool)
        known = meant.get(node.name)
        if known is not None and known.shape == codes.shape:
            zero |= (known == 0) & (codes == 0)
        if zero.any():
            found[str(node.name)] = zero
    return found


def keep_zeros(student: Student, zeros: Mapping[str, np.ndarray]) -> None:
    """Let these weights stay zero."""
    for node, weight in layers(student):
        if str(node.name) in zeros:
            weight.mask[torch.from_numpy(zeros[str(node.name)])] = 0.0


def limit_accumulators(student: Student, bits: Callable[[str], int | None]) -> None:
    """Keep the weights such that no accumulator needs more bits, whatever the input.

    An accumulator of inputs that span w steps spans ``sum |q| * w``: that stays within ``2^bits - 1``, so
    that with an offset so many unsigned bits hold it.

    Args:
        student: The student.
        bits: Width of the accumulators of a layer, by name; None for no limit.

    Raises:
        LimitError: What a layer reads has no known range, or not one step of a weight fits.
    """
    spans = integer_spans(student)
    for node, weight in layers(student):
        wanted = bits(str(node.name))
        if wanted is None:
            continue
        span = spans.get(node.inputs[0])
        if span is None:
            raise LimitError(
                "the range of what this layer reads is not known, so no accumulator width can be promised",
                node=node.name or "",
                op=node.op_type,
                found="integers that do not come from a quantizer",
                do="leave accumulator-bits out, or give it in layers for the others alone",
            )
        most = (2**wanted - 1) // max(1, span)
        if most < 1:
            raise LimitError(
                f"no weight fits an accumulator of {wanted} bits",
                node=node.name or "",
                op=node.op_type,
                found=f"inputs that span {span + 1} values",
                allowed=f"at most {2**wanted}",
                do="allow the accumulator more bits, or give inputs and activations fewer",
            )
        weight.budget = Budget(most, weight.axis)


def layers(student: Student) -> Iterator[tuple[ir.Node, FakeWeight]]:
    """The linear operators and their weights, in order."""
    for node, dq in weight_nodes(student.model):
        yield node, student.weights[dq]


def integer_spans(student: Student) -> dict[ir.Value | None, int]:
    """Largest minus smallest integer (0 among them) of what linear operators read, where it is known."""
    units = Units()
    for quantizer in student.quantizers:
        value = quantizer.dequantize.outputs[0]
        units.set(value, quantizer.scale)
        units.bound(value, quantizer.low - quantizer.zero_point, quantizer.high - quantizer.zero_point)
    mine = {n for q in student.quantizers for n in (q.quantize, q.dequantize)}
    found: dict[ir.Value | None, int] = {}
    for node in student.model.graph:
        linear = linear_of(node)
        if linear is not None:
            known = units.integers(node.inputs[0])
            if known is not None:
                found[node.inputs[0]] = max(0, known[1]) - min(0, known[0])
        if node not in mine:
            units.visit(node, linear)
    return found
