"""The quantizers of the qdq level: ``QuantizeLinear``, ``DequantizeLinear``, and the triple around a Clip.

These are operators of ONNX; the defaults of their attributes are those of ONNX's schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..editing import GraphEditor
from ..graph import constant_of
from .lookup import along_axis
from .view import View


@dataclass(frozen=True)
class _Quantizer(View):
    """An operator of two or three inputs: a tensor, its scale, and its zero point."""

    domain: ClassVar[str] = ""

    @property
    def scale(self) -> np.ndarray | None:
        """() or (channels), float32; None where it is computed."""
        return constant_of(self.node.inputs[1])

    @property
    def zero_point(self) -> np.ndarray | None:
        """() or (channels), of the type of the codes; None where there is none, or it is computed."""
        return constant_of(self.node.inputs[2]) if len(self.node.inputs) > 2 else None

    @property
    def axis(self) -> int:
        """Axis of the channels, where there is a scale for each; as it is written, so it may be negative."""
        return self._int("axis")

    @property
    def block_size(self) -> int:
        """Entries of ``axis`` that share a scale, where a channel has several; 0 where it has one."""
        return self._int("block_size")

    def per_channel(self, values: np.ndarray, rank: int) -> np.ndarray:
        """``values`` (one, or one for each channel) shaped to broadcast over a tensor of ``rank`` axes."""
        return along_axis(values.reshape(-1), self.axis, rank)

    @classmethod
    def make(
        cls,
        value: ir.Value,
        scale: ir.Value | None,
        zero_point: ir.Value | None = None,
        *,
        axis: int | None = None,
        name: str | None = None,
    ) -> ir.Node:
        """A node of this operator; ``axis`` is that of a scale for each channel."""
        inputs = [value, scale, *([] if zero_point is None else [zero_point])]
        return cls._node(inputs, {} if axis is None else {"axis": axis}, name)


@dataclass(frozen=True)
class QuantizeLinear(_Quantizer):
    """``round(input / scale) + zero_point``, saturated to the type of the codes."""

    op_type: ClassVar[str] = "QuantizeLinear"


@dataclass(frozen=True)
class DequantizeLinear(_Quantizer):
    """``(input - zero_point) * scale``: the float tensor that integer codes, ``input``, stand for."""

    op_type: ClassVar[str] = "DequantizeLinear"

    @property
    def clip(self) -> ir.Node | None:
        """The Clip that makes the codes, if one does."""
        producer = self.input.producer()
        return producer if producer is not None and producer.op_type == "Clip" else None

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code (inclusive): of its type, or uint8 where unknown, and of the Clip."""
        zero, dtype = self.zero_point, self.input.dtype
        stored = dtype.numpy() if dtype is not None else np.uint8 if zero is None else zero.dtype
        info = np.iinfo(stored)
        low, high = int(info.min), int(info.max)
        if self.clip is not None:
            ends = [constant_of(v) for v in self.clip.inputs[1:3]]
            low = max(low, int(ends[0])) if ends and ends[0] is not None else low
            high = min(high, int(ends[1])) if len(ends) > 1 and ends[1] is not None else high
        return low, high

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest integer (inclusive) once the zero point is taken off."""
        low, high = self.code_range
        zero = self.zero_point
        return (low, high) if zero is None else (low - int(zero.max()), high - int(zero.min()))


@dataclass(frozen=True)
class ActivationQuantizer:
    """``QuantizeLinear -> [Clip ->] DequantizeLinear``: a tensor rounded to integers, and floats again.

    The Clip is there where there are fewer bits than the type of the codes has.

    Attributes:
        quantize: Its first node.
        clip: The Clip between; None where the type of the codes is the range.
        dequantize: Its last node.
    """

    quantize: QuantizeLinear
    clip: ir.Node | None
    dequantize: DequantizeLinear

    @classmethod
    def match(cls, node: ir.Node | None) -> ActivationQuantizer | None:
        """The quantizer that ends in ``node``, a DequantizeLinear; None for any other node."""
        dequantize = DequantizeLinear.match(node)
        if dequantize is None:
            return None
        clip = dequantize.clip
        quantize = QuantizeLinear.producing(dequantize.input if clip is None else clip.inputs[0])
        return None if quantize is None else cls(quantize, clip, dequantize)

    @property
    def source(self) -> ir.Value:
        """The float tensor that is quantized."""
        return self.quantize.input

    @property
    def output(self) -> ir.Value:
        """The float tensor that has been quantized."""
        return self.dequantize.output

    @property
    def nodes(self) -> list[ir.Node]:
        """Its nodes, in order."""
        return [n for n in (self.quantize.node, self.clip, self.dequantize.node) if n is not None]

    @classmethod
    def insert(
        cls,
        edit: GraphEditor,
        value: ir.Value,
        name: str,
        *,
        scale: ir.Value | None,
        zero_point: ir.Value | None,
        ends: Sequence[ir.Value | None] = (),
        axis: int | None = None,
        rounding: tuple[ir.Value, ir.Value] | None = None,
        like: ir.Value | None = None,
        last: str = "",
    ) -> ActivationQuantizer:
        """Insert a quantizer at the place of ``edit``; its codes have the type of the zero point.

        Args:
            edit: Inserts the nodes.
            value: The float tensor to quantize.
            name: What its nodes are named after.
            scale, zero_point: Constants; without a zero point it is 0, of uint8.
            ends: Smallest and largest code, where there are fewer than the type has.
            axis: Axis of the channels, where there is a scale for each.
            rounding: Scale and zero point of the QuantizeLinear, where they are not what the codes stand for.
            like: What has the shape of its tensors; by default ``value``.
            last: Name of the DequantizeLinear, by default ``{name}_dequantize``.
        """
        like = value if like is None else like
        by_scale, by_zero = rounding or (scale, zero_point)
        stored = by_zero.dtype if by_zero is not None and by_zero.dtype is not None else ir.DataType.UINT8
        first = QuantizeLinear.make(value, by_scale, by_zero, axis=None if rounding else axis)
        codes = edit.insert(first, f"{name}_quantize", like)
        codes.type = ir.TensorType(stored)
        if ends:
            codes = edit.add("Clip", [codes, *ends], f"{name}_clip", like=like)
            codes.type = ir.TensorType(stored)
        restored = DequantizeLinear.make(codes, scale, zero_point, axis=axis)
        edit.insert(restored, last or f"{name}_dequantize", like).type = ir.TensorType(ir.DataType.FLOAT)
        return cls(QuantizeLinear(first), codes.producer() if ends else None, DequantizeLinear(restored))
