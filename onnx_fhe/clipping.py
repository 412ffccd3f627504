"""The client's first step: quantize the inputs, and count what had to be clipped to the calibrated range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from .ir.ops import QuantizeLinear, encrypts_by_input
from .ir.partition import Parts
from .ir.runtime import Arrays, Session

_LIKE = frozenset(
    {"Identity", "Cast", "Clip", "Sub", "Add", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
)
"""What may stand between a quantizer and an Encrypt: integers stay, moved by a zero point or rearranged."""


@dataclass(frozen=True)
class ClipReport:
    """Input values outside the calibrated range; they were clipped to it before encryption.

    Attributes:
        values: Their number.
        samples: Number of samples with at least one.
        by_value: Their number for each tensor that is quantized, by name; only those that have any.
    """

    values: int = 0
    samples: int = 0
    by_value: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Quantizer:
    """What a QuantizeLinear reads, and the floats that its integers stand for (they broadcast)."""

    source: ir.Value
    low: np.ndarray
    high: np.ndarray


class Prologue:
    """Runs the prologue of a model.

    Args:
        parts: The parts of an integer-level model.
    """

    def __init__(self, parts: Parts) -> None:
        self._model = parts.prologue
        self._ranges = {e.input.name or "": e.range for e in encrypts_by_input(parts.server)}
        self._quantizers = {
            v.name or "": _quantizer(v, self._ranges[v.name or ""]) for v in parts.prologue.graph.outputs
        }
        inner = {
            q.source.name or "" for q in self._quantizers.values() if q and not q.source.is_graph_input()
        }
        self._inner = sorted(inner - set(self._ranges))
        self._session = Session(self._model, [*self._ranges, *self._inner])

    def run(self, data: Mapping[str, np.ndarray]) -> tuple[Arrays, ClipReport]:
        """Quantize ``data``.

        Args:
            data: Arrays by input name, samples on axis 0.

        Returns:
            int64 arrays by Encrypt output name, inside the range that each Encrypt declares, and what was
            clipped: values further outside the range that the integers stand for than rounding takes them.
        """
        found = self._session.run_batched(data)
        total = len(next(iter(data.values())))
        outside: dict[str, np.ndarray] = {}
        values = {}
        for name, (low, high) in self._ranges.items():
            integers = np.rint(found[name])
            quantizer = self._quantizers[name]
            if quantizer is None:
                wrong, label = (integers < low) | (integers > high), name
            else:
                label = quantizer.source.name or ""
                array = (data[label] if label in data else found[label]).astype(np.float64)
                wrong = (array < quantizer.low) | (array > quantizer.high)
            # Two Encrypts may share one quantizer: counted once.
            outside[label] = wrong.reshape(total, -1).sum(axis=1)
            values[name] = np.clip(integers, low, high).astype(np.int64)
        by_sample = np.sum(list(outside.values()), axis=0)
        by_value = {name: int(counts.sum()) for name, counts in outside.items() if counts.any()}
        return values, ClipReport(int(by_sample.sum()), int(np.count_nonzero(by_sample)), by_value)


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
