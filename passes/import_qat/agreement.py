"""How many quantized values an import changed: ties of float rounding, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.errors import OnnxFheError
from ...ir.graph import constant_of

COMPARED_SAMPLES = 64
"""Calibration samples on which the imported network is compared with its source."""
TIE_DISTANCE = 1e-4
"""How near to a tie (in steps of a quantizer) a value may round to either side, by the errors of floats."""


@dataclass(frozen=True)
class Agreement:
    """Quantized values of an imported model against the model it came from.

    Attributes:
        values: How many were compared.
        different: How many are not the same.
        ties: How many lie within float error of the middle between two integers, so that a later stage, which
            computes the same in another order, may round them the other way.
    """

    values: int
    different: int
    ties: int


def compare(model: ir.Model, source: ir.Model, data: Mapping[str, np.ndarray]) -> Agreement | None:
    """Run both and compare the tensors behind quantizers that have kept their name; None for none.

    Args:
        model: A model of the qdq level.
        source: The model as it was loaded.
        data: Calibration data.
    """
    there = {str(o.name): o for n in source.graph for o in n.outputs}
    scales: dict[str, np.ndarray] = {}
    for node in model.graph:
        name, scale = str(node.outputs[0].name), constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.op_type == "DequantizeLinear" and constant_of(node.inputs[0]) is None and scale is not None:
            found = there.get(name)
            producer = found.producer() if found is not None else None
            if producer is not None and (producer.domain or producer.op_type == "DequantizeLinear"):
                scales[name] = scale
    if not scales:
        return None
    few = {k: v[:COMPARED_SAMPLES] for k, v in data.items()}
    try:
        rounded = _rounded(model)
        ours = runtime.Session(model, [*scales, *rounded]).run_batched(few)
        theirs = runtime.Session(source, list(scales)).run_batched(few)
    except OnnxFheError:
        return None
    total = different = 0
    for name, scale in scales.items():
        a, b = ours[name], theirs[name]
        if a.shape == b.shape:
            total += a.size
            different += int(np.sum(np.abs(a - b) > 0.4 * float(np.min(np.abs(scale)))))
    ties = sum(_ties(ours[n], s) for n, s in rounded.items())
    return Agreement(total, different, ties) if total else None


def _rounded(model: ir.Model) -> dict[str, np.ndarray]:
    """Computed tensors that are quantized to even with one scale, and that scale."""
    found = {}
    for node in model.graph:
        value, scale = node.inputs[0] if node.inputs else None, None
        if node.op_type == "QuantizeLinear" and value is not None and value.producer() is not None:
            scale = constant_of(node.inputs[1])
        if scale is not None and scale.size == 1 and value is not None:
            found[str(value.name)] = scale
    return found


def _ties(values: np.ndarray, scale: np.ndarray) -> int:
    steps = np.abs(values.astype(np.float64) / float(scale.reshape(-1)[0]))
    near = np.abs(steps - np.floor(steps) - 0.5) < TIE_DISTANCE
    return int(np.sum(near & (steps < 256)))
