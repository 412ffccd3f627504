"""Quantizers of QONNX: what their inputs say, and the standard operators that compute their integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import ActivationQuantizer

HALF_EVEN = frozenset({"ROUND", "HALF_EVEN"})
MAX_BITS = 8
"""Widest quantizer that is imported: integers of the qdq level are stored in 8 bits."""
_AWAY = {"UP": ("Ceil", 0.0), "DOWN": ("Floor", 0.0), "ROUND_TO_ZERO": ("Floor", 0.0)}
_AWAY |= {"HALF_UP": ("Floor", 0.5), "HALF_DOWN": ("Ceil", -0.5)}
"""Modes that are symmetric around zero: what is added to the magnitude, and how that is rounded."""


@dataclass(frozen=True)
class Quantizer:
    """A quantizer of activations.

    Attributes:
        scale: What one step of the integers is worth; as given, broadcastable to the tensor.
        zero: The integer that stands for 0; as given.
        low, high: Smallest and largest integer.
        mode: Rounding mode.
        bipolar: The integers are -1 and 1, by the sign.
        step: What the integers of ``inner`` are divided by (a power of two) where bits are truncated.
        inner: Scale and zero point of the integers to truncate; None where nothing is.
    """

    scale: np.ndarray
    zero: np.ndarray
    low: int
    high: int
    mode: str = "ROUND"
    bipolar: bool = False
    step: float = 1.0
    inner: tuple[np.ndarray, np.ndarray] | None = None


def bounds(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Smallest and largest integer of a quantizer, as QONNX has it."""
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def read(node: ir.Node, constants: list[np.ndarray], signed_input: bool) -> Quantizer:
    """What a QONNX quantizer does.

    Args:
        node: Quant, BipolarQuant, Trunc or TruncTo.
        constants: Its inputs behind the first.
        signed_input: Whether what a Trunc reads may be negative (QONNX does not say).

    Raises:
        UnsupportedError: More than 8 bits, or a zero point that is not whole.
    """
    text, number = node.attributes.get_string, node.attributes.get_int
    if node.op_type == "BipolarQuant":
        return Quantizer(constants[0], np.zeros(1), -1, 1, bipolar=True)
    scale, zero = constants[:2]
    bits = _bits(node, constants[{"Quant": 2, "Trunc": 3, "TruncTo": 4}[node.op_type]])
    if node.op_type == "Quant":
        signed = bool(number("signed", 1))
        mode = text("rounding_mode", "ROUND") or "ROUND"
        if bits == 1 and signed:
            _whole(node, zero)
            return Quantizer(scale, zero, -1, 1, bipolar=True)
        low, high = bounds(bits, signed, bool(number("narrow", 1)))
        return Quantizer(scale, _whole(node, zero), low, high, mode)
    mode = text("rounding_mode", "FLOOR") or "FLOOR"
    if node.op_type == "Trunc":
        low, high = bounds(bits, signed_input, False)
        step = 2.0 ** (float(np.ravel(constants[2])[0]) - bits)
        return Quantizer(scale, _whole(node, zero), low, high, mode, False, step, (scale, zero))
    step = float(2.0 ** np.round(np.log2(np.ravel(constants[3])[0] / np.ravel(scale)[0])))
    low, high = bounds(bits, bool(number("signed", 1)), bool(number("narrow", 0)))
    moved = _whole(node, np.asarray(zero / step))
    return Quantizer(constants[3], moved, low, high, mode, False, step, (scale, zero))


def _bits(node: ir.Node, given: np.ndarray) -> int:
    values = np.unique(given)
    if values.size == 1 and values[0] == int(values[0]) and 1 <= values[0] <= MAX_BITS:
        return int(values[0])
    raise UnsupportedError(
        "this quantizer has a bit width that tables do not take",
        node=node.name or "",
        op=node.op_type,
        found=", ".join(f"{v:g}" for v in values[:4]) + " bits",
        allowed=f"one width, 1 to {MAX_BITS} bits",
        do="train with fewer bits, or take this quantizer out",
    )


def _whole(node: ir.Node, zero: np.ndarray) -> np.ndarray:
    if np.all(zero == np.round(zero)):
        return zero
    raise UnsupportedError(
        "this quantizer has a zero point that is not whole",
        node=node.name or "",
        op=node.op_type,
        found=f"{np.ravel(zero)[0]:g}",
        allowed="a whole number",
        do="train with a quantized zero point",
    )


def decode(node: ir.Node, arrays: list[np.ndarray], opset: int) -> tuple[np.ndarray, np.ndarray]:
    """The integers (zero point taken off) and scales of a quantized constant, by running its quantizer.

    Args:
        node: A quantizer of QONNX.
        arrays: All its inputs.
        opset: ai.onnx opset.
    """
    given = {v: a for v, a in zip(node.inputs, arrays, strict=True) if v is not None}
    (values,) = runtime.run_nodes([node], given, [node.outputs[0]], opset)
    scale = arrays[4] if node.op_type == "TruncTo" else arrays[1]
    scale = scale.astype(np.float64).reshape([1] * (values.ndim - scale.ndim) + list(scale.shape))
    if scale.size == 1:
        scale = scale.reshape([1] * values.ndim)
    codes = values.astype(np.float64) / scale
    # What is left is float error of the multiplication by the scale, unless the zero point was no integer.
    near = np.abs(codes - np.round(codes)) < 1e-3
    return np.where(near, np.round(codes), codes), scale


def insert(edit: IntegerEditor, node: ir.Node, quantizer: Quantizer) -> ir.Value:
    """QuantizeLinear -> Clip -> DequantizeLinear in front of ``node``; returns the quantized tensor.

    QuantizeLinear rounds to even and adds the zero point afterwards. Where QONNX rounds otherwise, float
    operators do that, and QuantizeLinear, of scale 1, only takes their whole numbers.
    """
    x, like, name = node.inputs[0], node.outputs[0], edit.take_name(node)
    assert x is not None
    rank = len(like.shape) if like.shape is not None else 0
    axis, scale, zero = _along(node, quantizer, rank)
    dtype = np.uint8 if quantizer.low >= 0 else np.int8
    limits = np.iinfo(dtype)
    if zero.min() < limits.min or zero.max() > limits.max:
        raise UnsupportedError(
            "the zero point of this quantizer is outside its integers",
            node=name,
            op=node.op_type,
            found=f"{zero.min():g}",
            allowed=f"{limits.min} to {limits.max}",
            do="train with a zero point inside the range",
        )
    factor = edit.constant(f"{name}_scale", scale, np.float32)
    offset = edit.constant(f"{name}_zero_point", zero, dtype)
    plain = quantizer.mode in HALF_EVEN and quantizer.inner is None and not quantizer.bipolar
    rounding = None
    if not plain or np.any(zero):
        x = _whole_numbers(edit, x, like, name, quantizer)
        unit = edit.constant(f"{name}_one", np.ones(()))
        rounding = unit, edit.constant(f"{name}_zero", np.zeros((), dtype), dtype)
    ends = []
    if (quantizer.low, quantizer.high) != (limits.min, limits.max):
        codes = {"low": quantizer.low, "high": quantizer.high}
        ends = [edit.constant(f"{name}_{k}", np.asarray(v), dtype) for k, v in codes.items()]
    return ActivationQuantizer.insert(
        edit,
        x,
        name,
        scale=factor,
        zero_point=offset,
        ends=ends,
        axis=axis if scale.ndim else None,
        rounding=rounding,
        like=like,
        last=name,
    ).output


def _along(node: ir.Node, quantizer: Quantizer, rank: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Axis, scale and zero point as QuantizeLinear wants them: numbers, or vectors along one axis."""
    scale, zero = np.asarray(quantizer.scale), np.asarray(quantizer.zero)
    if scale.size == 1 and zero.size == 1:
        return 1, scale.reshape(()), zero.reshape(())
    shape = np.broadcast_shapes(scale.shape, zero.shape)
    shape = (*[1] * (rank - len(shape)), *shape)
    axes = [i for i, n in enumerate(shape) if n > 1]
    if len(axes) > 1 or axes[0] == 0:
        raise UnsupportedError(
            "this quantizer has scales along several axes",
            node=node.name or "",
            op=node.op_type,
            found=f"scales of shape {list(shape)}",
            allowed="one scale, or one for each channel",
            do="train with a scale per tensor or per channel",
        )
    size = shape[axes[0]]
    vectors = (np.broadcast_to(a.reshape(-1) if a.size > 1 else a.reshape(1), (size,)) for a in (scale, zero))
    return (axes[0], *vectors)  # type: ignore[return-value]


def _whole_numbers(
    edit: IntegerEditor, x: ir.Value, like: ir.Value, name: str, quantizer: Quantizer
) -> ir.Value:
    """The integers of a quantizer as floats, not yet clipped."""

    def add(op: str, *inputs: ir.Value | np.ndarray | float, **attributes: object) -> ir.Value:
        values = [
            v if isinstance(v, ir.Value) else edit.constant(f"{name}_{op.lower()}_by", np.asarray(v))
            for v in inputs
        ]
        return edit.add(op, values, f"{name}_{op.lower()}", attributes, like=like)

    scale, zero = quantizer.inner or (quantizer.scale, quantizer.zero)
    y = add("Div", x, _scalar(scale))
    if np.any(zero):
        y = add("Add", y, _scalar(zero))
    if quantizer.bipolar:
        positive = add("GreaterOrEqual", y, 0.0)
        positive.type = ir.TensorType(ir.DataType.BOOL)
        return add("Sub", add("Mul", add("Cast", positive, to=1), 2.0), 1.0)
    if quantizer.inner is not None:
        y = add("Div", add("Round", y), quantizer.step)
    mode = quantizer.mode
    if mode in _AWAY:
        op, half = _AWAY[mode]
        size = add("Abs", y)
        return add("Mul", add("Sign", y), add(op, add("Add", size, half) if half else size))
    return add({"CEIL": "Ceil", "FLOOR": "Floor"}.get(mode, "Round"), y)


def _scalar(array: np.ndarray) -> np.ndarray:
    return array.reshape(()) if array.size == 1 else array


def constants_of(node: ir.Node) -> list[np.ndarray]:
    """The inputs of a quantizer behind the first.

    Raises:
        UnsupportedError: One is computed from the data.
    """
    found = [constant_of(v) for v in node.inputs[1:]]
    if any(c is None for c in found):
        raise UnsupportedError(
            "the scale of this quantizer depends on the data",
            node=node.name or "",
            op=node.op_type,
            found="dynamic quantization",
            allowed="scales, zero points and widths that are constant",
            do="export the model in eval mode, or quantize it statically",
        )
    return [c for c in found if c is not None]
