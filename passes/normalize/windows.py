"""Convolution and pooling with every attribute written out, and with the padding before them taken in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import has_attributes, set_attributes
from ...ir.graph import constant_of, int_of, ints_of, is_float, only_consumer, rank_of
from ..framework.rewriting import Refusal
from .rule import NOT_STATIC, Rule, is_onnx


@dataclass(frozen=True)
class Window:
    """All attributes of a convolution or pooling, and the bias that it lacks."""

    node: ir.Node
    attributes: dict[str, int | float | list[int]]
    bias: np.ndarray | None


class NormalizeWindow(Rule[Window]):
    """Conv and pooling with every attribute written out, ``auto_pad`` resolved; a Conv also has a bias."""

    name: ClassVar[str] = "normalize-window"

    def match(self, node: ir.Node) -> Window | Refusal | None:
        """The attributes, where others are written."""
        if not is_onnx(node, "Conv", "AveragePool", "MaxPool"):
            return None
        weight = node.inputs[1] if node.op_type == "Conv" else None
        shape = shapes.static_of(weight)
        kernel = shape[2:] if shape is not None else ints_of(node, "kernel_shape")
        if kernel is None:
            return NOT_STATIC
        strides = ints_of(node, "strides") or [1] * len(kernel)
        dilations = ints_of(node, "dilations") or [1] * len(kernel)
        pads = _pads(node, kernel, strides, dilations)
        if pads is None:
            return NOT_STATIC
        written: dict[str, int | float | list[int]] = {
            "dilations": dilations,
            "kernel_shape": kernel,
            "pads": pads,
            "strides": strides,
        }
        if weight is not None:
            written["group"] = int_of(node, "group", 1)
        others = {k: a.value for k, a in node.attributes.items() if k not in written and k != "auto_pad"}
        attributes, bias = dict(sorted((others | written).items())), None
        if shape is not None and (len(node.inputs) < 3 or node.inputs[2] is None):
            array = constant_of(weight)
            bias = np.zeros(shape[0], array.dtype) if array is not None and is_float(weight) else None
        return None if bias is None and has_attributes(node, attributes) else Window(node, attributes, bias)

    def apply(self, match: Window) -> None:
        """Write them."""
        set_attributes(match.node, match.attributes)
        if match.bias is not None:
            self.edit.set_constant(match.node, 2, match.bias, f"{match.node.name}.bias")


def _pads(node: ir.Node, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int] | None:
    attribute = node.attributes.get("auto_pad")
    mode = attribute.as_string() if attribute is not None else "NOTSET"
    if mode == "NOTSET":
        return ints_of(node, "pads") or [0] * (2 * len(kernel))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    sizes = (shapes.dims_of(node.inputs[0]) or [])[2:]
    if len(sizes) != len(kernel) or not all(isinstance(s, int) for s in sizes):
        return None
    begin, end = [], []
    for size, k, stride, dilation in zip(map(int, sizes), kernel, strides, dilations, strict=True):  # type: ignore[arg-type]
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        begin.append(small if mode == "SAME_UPPER" else total - small)
        end.append(total - small if mode == "SAME_UPPER" else small)
    return begin + end


class FoldPad(Rule[tuple[ir.Node, ir.Node, list[int]]]):
    """A Pad with zeros goes into the Conv behind it."""

    name: ClassVar[str] = "fold-pad"

    def match(self, node: ir.Node) -> tuple[ir.Node, ir.Node, list[int]] | Refusal | None:
        """The Pad, the Conv and its new pads."""
        if not is_onnx(node, "Pad"):
            return None
        conv = only_consumer(node.outputs[0])
        if conv is None or not is_onnx(conv, "Conv") or conv.inputs[0] is not node.outputs[0]:
            return Refusal("no Conv alone reads it")
        added, pads = _zero_padding(node), ints_of(conv, "pads")
        if added is None:
            return Refusal("it does not add zeros to the image alone")
        if pads is None or "auto_pad" in conv.attributes or len(added) != len(pads):
            return Refusal("the pads of the Conv are not written out")
        return node, conv, [a + p for a, p in zip(added, pads, strict=True)]

    def apply(self, match: tuple[ir.Node, ir.Node, list[int]]) -> None:
        """Let the Conv pad."""
        node, conv, pads = match
        set_attributes(conv, {k: a.value for k, a in conv.attributes.items()} | {"pads": pads})
        conv.replace_input_with(0, node.inputs[0])
        self.edit.remove(node)


def _zero_padding(node: ir.Node) -> list[int] | None:
    """The padding of the spatial axes (begins, then ends), when that is all that the node does."""
    attribute = node.attributes.get("mode")
    rank = rank_of(node.inputs[0])
    amounts = constant_of(node.inputs[1])
    inputs = [*node.inputs, None, None][2:4]
    filler, axes = constant_of(inputs[0]), constant_of(inputs[1])
    if (attribute is not None and attribute.as_string() != "constant") or rank is None or amounts is None:
        return None
    if (inputs[0] is not None and (filler is None or filler.any())) or (
        inputs[1] is not None and axes is None
    ):
        return None
    named = range(rank) if axes is None else [int(a) % rank for a in axes.ravel()]
    full = np.zeros((2, rank), np.int64)
    full[:, list(named)] = amounts.reshape(2, -1)
    if (full < 0).any() or full[:, :2].any():
        return None
    return [int(v) for v in full[:, 2:].ravel()]
