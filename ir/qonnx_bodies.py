"""The bodies of QONNX's operators, written with onnxscript."""

from __future__ import annotations

import onnx
from onnxscript import FLOAT, script, values
from onnxscript import opset19 as op

# The domain is replaced by the one that a model names.
_domain = values.Opset("qonnx", 1)


@script(_domain, default_opset=op)
def RoundTo(x: FLOAT, rounding_mode: str = "ROUND") -> FLOAT:
    mode = op.Constant(value_string=rounding_mode)
    half = op.Constant(value_float=0.5)
    size = op.Abs(x)
    sign = op.Sign(x)
    y = op.Round(x)
    y = op.Where(op.Equal(mode, op.Constant(value_string="CEIL")), op.Ceil(x), y)
    y = op.Where(op.Equal(mode, op.Constant(value_string="FLOOR")), op.Floor(x), y)
    y = op.Where(op.Equal(mode, op.Constant(value_string="UP")), op.Mul(sign, op.Ceil(size)), y)
    towards_zero = op.Mul(sign, op.Floor(size))
    y = op.Where(op.Equal(mode, op.Constant(value_string="DOWN")), towards_zero, y)
    y = op.Where(op.Equal(mode, op.Constant(value_string="ROUND_TO_ZERO")), towards_zero, y)
    half_up = op.Mul(sign, op.Floor(op.Add(size, half)))
    y = op.Where(op.Equal(mode, op.Constant(value_string="HALF_UP")), half_up, y)
    half_down = op.Mul(sign, op.Ceil(op.Sub(size, half)))
    return op.Where(op.Equal(mode, op.Constant(value_string="HALF_DOWN")), half_down, y)


@script(_domain, default_opset=op)
def Within(x: FLOAT, bitwidth: FLOAT, signed: int = 1, narrow: int = 1) -> FLOAT:
    one = op.Constant(value_float=1.0)
    two = op.Constant(value_float=2.0)
    is_signed = op.Cast(op.Constant(value_int=signed), to=1)
    is_narrow = op.Cast(op.Constant(value_int=narrow), to=1)
    size = op.Pow(two, op.Sub(bitwidth, is_signed))
    high = op.Sub(op.Sub(size, one), op.Mul(is_narrow, op.Sub(one, is_signed)))
    low = op.Mul(is_signed, op.Sub(is_narrow, size))
    return op.Max(op.Min(x, high), low)


@script(_domain, default_opset=op)
def Quant(
    x: FLOAT,
    scale: FLOAT,
    zeropt: FLOAT,
    bitwidth: FLOAT,
    signed: int = 1,
    narrow: int = 1,
    rounding_mode: str = "ROUND",
) -> FLOAT:
    """Uniform quantization to ``bitwidth`` bits and back."""
    one = op.Constant(value_float=1.0)
    two = op.Constant(value_float=2.0)
    is_signed = op.Cast(op.Constant(value_int=signed), to=1)
    y = op.Add(op.Div(x, scale), zeropt)
    bounded = RoundTo(Within(y, bitwidth, signed=signed, narrow=narrow), rounding_mode=rounding_mode)
    # One signed bit means -1 and 1.
    zero = op.Constant(value_float=0.0)
    sign = op.Sub(op.Mul(op.Cast(op.GreaterOrEqual(y, zero), to=1), two), one)
    bipolar = op.And(op.Equal(bitwidth, one), op.Greater(is_signed, zero))
    q = op.Where(bipolar, sign, bounded)
    return op.Mul(op.Sub(q, zeropt), scale)


@script(_domain, default_opset=op)
def BipolarQuant(x: FLOAT, scale: FLOAT) -> FLOAT:
    """The sign, times a scale; the sign of 0 is 1."""
    zero = op.Constant(value_float=0.0)
    one = op.Constant(value_float=1.0)
    two = op.Constant(value_float=2.0)
    return op.Mul(op.Sub(op.Mul(op.Cast(op.GreaterOrEqual(x, zero), to=1), two), one), scale)


@script(_domain, default_opset=op)
def Trunc(
    x: FLOAT,
    scale: FLOAT,
    zeropt: FLOAT,
    in_bitwidth: FLOAT,
    out_bitwidth: FLOAT,
    rounding_mode: str = "FLOOR",
) -> FLOAT:
    """Drops least significant bits of integers of ``in_bitwidth`` bits."""
    two = op.Constant(value_float=2.0)
    y = op.Round(op.Add(op.Div(x, scale), zeropt))
    y = op.Div(y, op.Pow(two, op.Sub(in_bitwidth, out_bitwidth)))
    y = RoundTo(y, rounding_mode=rounding_mode)
    return op.Mul(op.Sub(y, zeropt), scale)


@script(_domain, default_opset=op)
def TruncTo(
    x: FLOAT,
    scale: FLOAT,
    zeropt: FLOAT,
    in_bitwidth: FLOAT,
    out_scale: FLOAT,
    out_bitwidth: FLOAT,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "FLOOR",
) -> FLOAT:
    """``Trunc`` of version 2: the ratio of the scales says how many bits go, and the result is bounded."""
    two = op.Constant(value_float=2.0)
    ratio = op.Div(op.Log(op.Div(out_scale, scale)), op.Log(two))
    step = op.Pow(two, op.Round(ratio))
    y = op.Div(op.Round(op.Add(op.Div(x, scale), zeropt)), step)
    y = RoundTo(Within(y, out_bitwidth, signed=signed, narrow=narrow), rounding_mode=rounding_mode)
    return op.Mul(op.Sub(y, op.Div(zeropt, step)), out_scale)


def protos(domain: str) -> list[onnx.FunctionProto]:
    """The bodies for one of QONNX's domains, and of what they call."""
    result = []
    for function in (RoundTo, Within, Quant, BipolarQuant, Trunc, TruncTo):
        proto = function.to_function_proto()
        proto.domain = domain
        for imported in proto.opset_import:
            if imported.domain == "qonnx":
                imported.domain = domain
        for node in proto.node:
            if node.domain == "qonnx":
                node.domain = domain
        result.append(proto)
    return result
