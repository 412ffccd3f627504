"""Reading a quantized model: integers of weights and biases as they are stored."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import Linear, stored_constant
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of
from ...ir.ops import DequantizeLinear


def bias_of(node: ir.Node) -> np.ndarray | None:
    """The bias of a Gemm or Conv, also one that is stored as integers and a scale; None for none.

    Raises:
        UnsupportedError: The bias is computed.
    """
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    bias = stored_constant(value)
    if bias is None:
        raise UnsupportedError(
            "the bias of this linear operator is not constant",
            node=node.name or "",
            op=node.op_type,
            found=f"a bias {value.name!r} that is computed",
            allowed="an initializer, or DequantizeLinear of one",
            do="store the bias in the model",
        )
    return bias.reshape(-1)


def weight_of(linear: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of a weight as stored, and the scale: (1) or (out).

    Raises:
        UnsupportedError: The weight is not quantized, not symmetric, or has scales along another axis.
    """
    stored = DequantizeLinear.producing(linear.node.inputs[1])
    if stored is None:
        raise UnsupportedError(
            "the weights of this linear operator are not quantized",
            node=linear.node.name or "",
            op=linear.node.op_type,
            found="float weights",
            allowed="DequantizeLinear of an integer initializer",
            do="run the quantize pass on the float model",
        )
    codes, scale, zero = constant_of(stored.input), stored.scale, stored.zero_point
    assert codes is not None
    assert scale is not None
    if zero is not None and np.any(zero):
        raise UnsupportedError(
            "the weights of this linear operator have a zero point",
            node=linear.node.name or "",
            op=linear.node.op_type,
            found=f"zero point {np.asarray(zero).reshape(-1)[0]}",
            allowed="symmetric weights",
            do="quantize the weights symmetrically (zero point 0)",
        )
    if scale.size > 1 and (
        scale.ndim != 1 or stored.block_size or stored.axis % codes.ndim != linear.out_axis
    ):
        raise UnsupportedError(
            "the weights of this linear operator have scales that are not one for each output",
            node=linear.node.name or "",
            op=linear.node.op_type,
            found=f"scales of shape {list(scale.shape)} along axis {stored.axis}",
            allowed=f"one scale, or one for each entry of axis {linear.out_axis}",
            do="quantize the weights per tensor or per output channel",
        )
    return codes.astype(np.float32), np.asarray(scale, np.float64).reshape(-1)
