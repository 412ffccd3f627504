"""Convolutions and pooling of one and three dimensions as those of two dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant_of, int_of, ints_of, is_float
from ..framework.rewriting import Refusal
from .rule import NOT_CONSTANT, NOT_FLOAT, NOT_STATIC, Rule, is_onnx

MAX_REWRITTEN_WEIGHTS = 4_000_000
"""Most weights that a rewritten operator may have."""

_WEIGHTED = ("Conv", "ConvTranspose")
_POOLS = ("AveragePool", "MaxPool", "LpPool")


@dataclass(frozen=True)
class Lifted:
    """An operator on sequences, with its weight and attributes for images of height 1."""

    node: ir.Node
    weight: np.ndarray | None
    attributes: dict[str, Any]


class LiftOneDimension(Rule[Lifted]):
    """Conv, ConvTranspose and pooling of sequences work on images of height 1."""

    name: ClassVar[str] = "lift-one-dimension"

    def match(self, node: ir.Node) -> Lifted | Refusal | None:
        """The operator on images."""
        if not is_onnx(node, *_WEIGHTED, *_POOLS):
            return None
        dims = shapes.dims_of(node.inputs[0])
        if dims is None or len(dims) != 3:
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        if len(node.outputs) != 1:
            return Refusal("it returns indices, too")
        weight = constant_of(node.inputs[1]) if node.op_type in _WEIGHTED else None
        if weight is None and node.op_type in _WEIGHTED:
            return NOT_CONSTANT
        wide: dict[str, Any] = {}
        for key, attribute in node.attributes.items():
            value = attribute.value
            if key in ("kernel_shape", "strides", "dilations", "output_shape"):
                wide[key] = [1, *value]
            elif key == "pads":
                wide[key] = [0, value[0], 0, value[1]]
            elif key == "output_padding":
                wide[key] = [0, *value]
            else:
                wide[key] = value
        return Lifted(node, None if weight is None else weight[:, :, None, :], wide)

    def apply(self, match: Lifted) -> None:
        """Write it between an Unsqueeze and a Squeeze."""
        node, edit, name, inputs = (
            match.node,
            self.edit.at(match.node),
            match.node.name,
            list(match.node.inputs),
        )
        if match.weight is not None:
            inputs[1] = edit.constant(f"{name}.weight", match.weight)
        axis = edit.constant(f"{name}.height", np.array([2]))
        inputs[0] = edit.add("Unsqueeze", [inputs[0], axis], f"{name}/image")
        image = edit.add(node.op_type, inputs, f"{name}/over_image", match.attributes)
        edit.substitute(node, "Squeeze", [image, axis])


@dataclass(frozen=True)
class Volume:
    """A convolution of three dimensions as one of two.

    Attributes:
        node: The Conv.
        before: Channels times depth, height and width of what it reads.
        kernel: Its weight.
        bias: Its bias, if it has one.
        attributes: Attributes of the convolution of two dimensions.
        after: Channels, depth, height and width of the result.
    """

    node: ir.Node
    before: list[int]
    kernel: np.ndarray
    bias: np.ndarray | None
    attributes: dict[str, Any]
    after: list[int]


class FoldDepth(Rule[Volume]):
    """A convolution of three dimensions is one of two, with the depth among the channels.

    The weight from depth d of a channel to depth e of another is the slice of the kernel that lies between
    them, or zero.
    """

    name: ClassVar[str] = "fold-depth"

    def match(self, node: ir.Node) -> Volume | Refusal | None:
        """The convolution of two dimensions."""
        if not is_onnx(node, "Conv"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        weight, static = constant_of(node.inputs[1]), shapes.static_of_sample(node.inputs[0])
        strides, pads, dilations = (ints_of(node, k) for k in ("strides", "pads", "dilations"))
        if weight is None:
            return NOT_CONSTANT
        if weight.ndim != 5:
            return None
        if static is None or not (strides and pads and dilations):
            return NOT_STATIC
        depth, (outs, ins) = static[1], weight.shape[:2]
        out_depth = (depth + pads[0] + pads[3] - dilations[0] * (weight.shape[2] - 1) - 1) // strides[0] + 1
        entries = outs * out_depth * ins * depth * math.prod(weight.shape[3:])
        if entries > MAX_REWRITTEN_WEIGHTS or out_depth < 1:
            return Refusal(f"it would have {entries} weights")
        flat = np.zeros((outs, out_depth, ins, depth, *weight.shape[3:]), weight.dtype)
        for place in range(out_depth):
            for tap in range(weight.shape[2]):
                source = place * strides[0] - pads[0] + tap * dilations[0]
                if 0 <= source < depth:
                    flat[:, place, :, source] = weight[:, :, tap]
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        size = [
            (n + p + q - d * (k - 1) - 1) // s + 1
            for n, p, q, d, k, s in zip(
                static[2:], pads[1:3], pads[4:6], dilations[1:], weight.shape[3:], strides[1:], strict=True
            )
        ]
        return Volume(
            node,
            [static[0] * depth, *static[2:]],
            flat.reshape(outs * out_depth, ins * depth, *weight.shape[3:]),
            None if bias is None else np.repeat(bias, out_depth),
            {
                "kernel_shape": list(weight.shape[3:]),
                "strides": strides[1:],
                "dilations": dilations[1:],
                "pads": [pads[1], pads[2], pads[4], pads[5]],
                "group": int_of(node, "group", 1),
            },
            [outs, out_depth, *size],
        )

    def apply(self, match: Volume) -> None:
        """Write it between two Reshapes."""
        node, edit, name = match.node, self.edit.at(match.node), str(match.node.name)
        target = edit.constant(f"{name}.flat", np.array([-1, *match.before]))
        inputs = [
            edit.add("Reshape", [node.inputs[0], target], f"{name}/flat"),
            edit.constant(f"{name}.weight", match.kernel),
        ]
        if match.bias is not None:
            inputs.append(edit.constant(f"{name}.bias", match.bias))
        image = edit.add("Conv", inputs, f"{name}/over_images", match.attributes)
        target = edit.constant(f"{name}.shape", np.array([-1, *match.after]))
        edit.substitute(node, "Reshape", [image, target])


@dataclass(frozen=True)
class Blocks:
    """Average pooling of blocks: sizes of a sample before and after, and the windows along its axes."""

    node: ir.Node
    before: list[int]
    after: list[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]


class AverageByAxes(Rule[Blocks]):
    """Averages over blocks are averages over images, and then along the depth.

    What is counted in a window is a product over its axes, so that holds for any padding.
    """

    name: ClassVar[str] = "average-by-axes"

    def match(self, node: ir.Node) -> Blocks | Refusal | None:
        """The sizes and windows."""
        if not is_onnx(node, "AveragePool"):
            return None
        before, after = shapes.static_of_sample(node.inputs[0]), shapes.static_of_sample(node.outputs[0])
        windows = [ints_of(node, k) for k in ("kernel_shape", "strides", "dilations", "pads")]
        if before is None or after is None or not all(windows):
            return NOT_STATIC
        if len(before) != 4:
            return None
        return Blocks(node, before, after, *(w for w in windows if w is not None))

    def apply(self, match: Blocks) -> None:
        """Write both averages."""
        node, edit, name = match.node, self.edit.at(match.node), str(match.node.name)
        kept = {k: int_of(node, k, 0) for k in ("ceil_mode", "count_include_pad")}
        (channels, depth, *image), after = match.before, match.after

        def reshaped(value: ir.Value | None, part: str, *shape: int) -> ir.Value:
            target = edit.constant(f"{name}.shape", np.array([-1, *shape]))
            return edit.add("Reshape", [value, target], f"{name}/{part}")

        def averaged(value: ir.Value, part: str, axes: list[int | None]) -> ir.Value:
            """Over axes of the block, or None for an axis that stays."""
            window = {
                "kernel_shape": [1 if a is None else match.kernel[a] for a in axes],
                "strides": [1 if a is None else match.strides[a] for a in axes],
                "dilations": [1 if a is None else match.dilations[a] for a in axes],
                "pads": [0 if a is None else match.pads[a + end] for end in (0, 3) for a in axes],
            }
            return edit.add("AveragePool", [value], f"{name}/{part}", window | kept)

        images = reshaped(node.inputs[0], "images", channels * depth, *image)
        small = averaged(images, "over_images", [1, 2])
        columns = reshaped(small, "columns", channels, depth, after[2] * after[3])
        value = averaged(columns, "over_depth", [0, None])
        target = edit.constant(f"{name}.shape", np.array([-1, *after]))
        edit.substitute(node, "Reshape", [value, target])
