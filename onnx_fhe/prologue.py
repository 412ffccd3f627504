"""The prologue of a model, and the floats that its quantizers can tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from .clipping import EncryptedRange, QuantizingRunner
from .ir.ops import QuantizeLinear, encrypts_by_input
from .ir.partition import Parts
from .ir.runtime import Session, prepared

_LIKE = frozenset(
    {"Identity", "Cast", "Clip", "Sub", "Add", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
)
"""What may stand between a quantizer and an Encrypt: integers stay, moved by a zero point or rearranged."""


@dataclass(frozen=True)
class _Quantizer:
    """What a QuantizeLinear reads, and the floats that its integers stand for (they broadcast)."""

    source: ir.Value
    low: np.ndarray
    high: np.ndarray


class Prologue(QuantizingRunner):
    """Runs the prologue of a model.

    Args:
        parts: The parts of an integer-level model.
    """

    def __init__(self, parts: Parts) -> None:
        proto, ranges = standalone(parts)
        super().__init__(Session(proto), ranges)


def standalone(parts: Parts) -> tuple[onnx.ModelProto, tuple[EncryptedRange, ...]]:
    """The prologue of a model as onnxruntime runs it without anything else, and what it encrypts.

    It returns every tensor that is encrypted, and after them what inside it is quantized.
    """
    ranges = []
    inner = set()
    declared = {e.input.name or "": e.range for e in encrypts_by_input(parts.server)}
    values = {v.name or "": v for v in parts.prologue.graph.outputs}
    for name, (low, high) in declared.items():
        quantizer = _quantizer(values[name], (low, high))
        if quantizer is None:
            ranges.append(EncryptedRange(name, low, high, name))
            continue
        source = quantizer.source.name or ""
        ranges.append(EncryptedRange(name, low, high, source, quantizer.low, quantizer.high))
        if not quantizer.source.is_graph_input():
            inner.add(source)
    wanted = [*declared, *sorted(inner - set(declared))]
    return prepared(parts.prologue, wanted), tuple(ranges)


def _quantizer(value: ir.Value, declared: tuple[int, int]) -> _Quantizer | None:
    """The quantizer that made ``value``; None where something else did."""
    node = value.producer()
    while node is not None and node.op_type in _LIKE:
        variable = [v for v in node.inputs if v is not None and v.const_value is None]
        if len(variable) != 1:
            return None
        node = variable[0].producer()
    quantize = QuantizeLinear.match(node)
    if quantize is None or quantize.scale is None:
        return None
    source, steps = quantize.input, quantize.scale.astype(np.float64)
    if steps.ndim == 1 and steps.size > 1:
        if source.shape is None:
            return None
        steps = quantize.per_channel(steps, len(source.shape))
    low, high = (steps * end for end in (declared[0] - 0.5, declared[1] + 0.5))
    return _Quantizer(*_before_scaling(source, low, high))


def _before_scaling(
    value: ir.Value, low: np.ndarray, high: np.ndarray
) -> tuple[ir.Value, np.ndarray, np.ndarray]:
    """What was given before offsets and scales were applied, with its bounds for those of ``value``."""
    while (node := value.producer()) is not None and node.op_type in ("Mul", "Sub"):
        source, constant = node.inputs
        if source is None or constant is None or constant.const_value is None or source.shape != value.shape:
            break
        number = constant.const_value.numpy().astype(np.float64)
        if node.op_type == "Sub":
            low, high = low + number, high + number
        elif np.all(number >= 0):
            # A feature that is always taken for its offset stands for nothing else.
            inverse = np.where(number > 0, 1 / np.where(number > 0, number, 1.0), 0.0)
            low, high = low * inverse, high * inverse
        else:
            break
        value = source
    return value, low, high
