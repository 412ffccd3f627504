"""What the codes of a quantized tensor can be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.graph import constant_of


def code_range(codes: ir.Value, zero: np.ndarray) -> tuple[int, int]:
    """Smallest and largest integer of a quantized tensor, zero point taken off."""
    info = np.iinfo((codes.dtype or ir.DataType.UINT8).numpy())
    low, high = int(info.min), int(info.max)
    producer = codes.producer()
    if producer is not None and producer.op_type == "Clip":
        bounds = [constant_of(v) for v in producer.inputs[1:3]]
        low = max(low, int(bounds[0])) if bounds and bounds[0] is not None else low
        high = min(high, int(bounds[1])) if len(bounds) > 1 and bounds[1] is not None else high
    return low - int(zero.max()), high - int(zero.min())
