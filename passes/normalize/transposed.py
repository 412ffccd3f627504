"""Transposed convolutions as convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant_of, int_of, ints_of, is_float
from ..framework.rewriting import Refusal
from ..import_qat.stored import is_static
from .rule import NOT_CONSTANT, NOT_FLOAT, NOT_STATIC, Rule, is_onnx


@dataclass(frozen=True)
class Phases:
    """A transposed convolution by phases of its stride.

    Attributes:
        node: The ConvTranspose.
        kernel: The weight of the Conv: numbers of elements of the old one from 1 on, 0 for a zero.
        pads: Pads of the Conv.
        group: Its groups.
        outs: Channels of the result.
        strides: Phases along both axes.
        sizes: Positions of each phase.
        out: Height and width of the result.
    """

    node: ir.Node
    kernel: np.ndarray
    pads: list[int]
    group: int
    outs: int
    strides: tuple[int, int]
    sizes: tuple[int, int]
    out: list[int]


class TransposedConvolution(Rule[Phases]):
    """A ConvTranspose of two dimensions is a Conv that makes every phase of the stride, and moves.

    Output t = s i + r takes x[m] times w[t + p - s m] (pads p, stride s): for each phase r a convolution of
    its own over x, computed as channels of one Conv; DepthToSpace by Reshape and Transpose interleaves them.
    """

    name: ClassVar[str] = "transposed-convolution"

    def match(self, node: ir.Node) -> Phases | Refusal | None:
        """The Conv."""
        if not is_onnx(node, "ConvTranspose"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        weight, static = _numbers(node.inputs[1]), shapes.static_of_sample(node.inputs[0])
        out = shapes.static_of_sample(node.outputs[0])
        if weight is None:
            return NOT_CONSTANT
        if static is None or out is None:
            return NOT_STATIC
        if weight.ndim != 4 or len(out) != 3:
            return Refusal("it does not work on images")
        strides = ints_of(node, "strides") or [1, 1]
        dilations, group = ints_of(node, "dilations") or [1, 1], int_of(node, "group", 1)
        pads = _transposed_pads(node, static[1:], out[1:], weight.shape[2:], strides, dilations)
        spread = np.zeros(
            (*weight.shape[:2], *((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))),
            weight.dtype,
        )
        spread[:, :, :: dilations[0], :: dilations[1]] = weight
        axes = [
            found
            for n, o, k, s, p in zip(static[1:], out[1:], spread.shape[2:], strides, pads, strict=True)
            if (found := _phases(n, o, k, s, p)) is not None
        ]
        if len(axes) < 2:
            return Refusal("it cuts off more than a convolution without negative pads can")
        (rows, taps_y, pads_y, size_y), (columns, taps_x, pads_x, size_x) = axes
        outs, s_y, s_x = weight.shape[1] * group, strides[0], strides[1]
        # (in per group, group, out per group, phase, tap) for both axes; taps outside the kernel are zero.
        padded = np.pad(spread, ((0, 0), (0, 0), (0, 1), (0, 1)))
        picked = padded[:, :, rows][:, :, :, :, columns]  # (C, M, s_y, taps_y, s_x, taps_x)
        picked = picked.reshape(group, weight.shape[0] // group, *picked.shape[1:])
        kernel = picked.transpose(0, 2, 3, 5, 1, 4, 6).reshape(
            outs * s_y * s_x, weight.shape[0] // group, taps_y, taps_x
        )
        around = [pads_y[0], pads_x[0], pads_y[1], pads_x[1]]
        return Phases(node, kernel, around, group, outs, (s_y, s_x), (size_y, size_x), out[1:])

    def apply(self, match: Phases) -> None:
        """Write the Conv and what interleaves its phases."""
        node, edit, name, kernel = match.node, self.edit.at(match.node), str(match.node.name), match.kernel
        (s_y, s_x), (size_y, size_x), outs = match.strides, match.sizes, match.outs
        inputs = [node.inputs[0], self._picked(node, 1, kernel)]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            inputs.append(self._picked(node, 2, np.repeat(np.arange(outs) + 1, s_y * s_x)))
        attributes = {
            "kernel_shape": list(kernel.shape[2:]),
            "strides": [1, 1],
            "dilations": [1, 1],
            "pads": match.pads,
            "group": match.group,
        }
        if s_y == s_x == 1:
            edit.substitute(node, "Conv", inputs, attributes)
            return
        value = edit.add("Conv", inputs, f"{name}/phases", attributes)
        split = edit.constant(f"{name}.split", np.array([-1, outs, s_y, s_x, size_y, size_x]))
        value = edit.add("Reshape", [value, split], f"{name}/split")
        value = edit.add("Transpose", [value], f"{name}/interleave", {"perm": [0, 1, 4, 2, 5, 3]})
        whole = [size_y * s_y, size_x * s_x]
        joined = edit.constant(f"{name}.shape", np.array([-1, outs, *whole]))
        if whole == match.out:
            edit.substitute(node, "Reshape", [value, joined])
            return
        value = edit.add("Reshape", [value, joined], f"{name}/joined")
        limits = [np.array([0, 0]), np.array(match.out), np.array([2, 3])]
        ends = [edit.constant(f"{name}.crop_{i}", a) for i, a in enumerate(limits)]
        edit.substitute(node, "Slice", [value, *ends])

    def _picked(self, node: ir.Node, index: int, numbers: np.ndarray) -> ir.Value:
        """Elements of an input by their numbers, 0 for a zero; what is quantized is moved as it is."""
        value, name = node.inputs[index], f"{node.name}.{('', 'weight', 'bias')[index]}"
        edit, array = self.edit, constant_of(value)
        if array is not None:
            return edit.constant(name, np.append(np.zeros(1, array.dtype), array.ravel())[numbers])
        assert value is not None
        assert value.dtype is not None
        flat = edit.add("Reshape", [value, edit.constant(f"{name}.flat", np.array([-1]))], f"{name}/flat")
        if not numbers.all():
            zero = edit.constant(f"{name}.zero", np.zeros(1, value.dtype.numpy()))
            flat = edit.add("Concat", [flat, zero], f"{name}/and_zero", {"axis": 0})
        places = edit.constant(f"{name}.places", numbers.ravel() - 1)  # -1 is the zero at the end
        picked = edit.add("Gather", [flat, places], f"{name}/picked", {"axis": 0})
        shape = edit.constant(f"{name}.shape", np.array(numbers.shape))
        return edit.add("Reshape", [picked, shape], f"{name}/shaped")


def _numbers(weight: ir.Value | None) -> np.ndarray | None:
    """The numbers of the elements of a weight, from 1 on, in its shape; None where it depends on an input."""
    static = shapes.static_of(weight)
    if static is None or (constant_of(weight) is None and not is_static(weight)):
        return None
    return np.arange(1, math.prod(static) + 1).reshape(static)


def _transposed_pads(
    node: ir.Node,
    sizes: list[int],
    out: list[int],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[int]:
    """The pads at the beginning; those at the end follow from the size of the output."""
    attribute = node.attributes.get("auto_pad")
    mode = attribute.as_string() if attribute is not None else "NOTSET"
    if mode == "VALID":
        return [0, 0]
    if mode == "NOTSET" and "output_shape" not in node.attributes:
        return (ints_of(node, "pads") or [0, 0, 0, 0])[:2]
    extra = ints_of(node, "output_padding") or [0, 0]
    found = []
    for n, o, k, s, d, e in zip(sizes, out, kernel, strides, dilations, extra, strict=True):
        total = max(s * (n - 1) + e + (k - 1) * d + 1 - o, 0)
        found.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return found


def _phases(
    size: int, out: int, kernel: int, stride: int, pad: int
) -> tuple[np.ndarray, int, tuple[int, int], int] | None:
    """(index into the kernel of (phase, tap), taps, pads, positions of a phase) of one axis.

    The index is that of an added zero where a tap of a phase lies outside the kernel.
    """
    lowest, highest = -((stride - 1 + pad) // stride), (kernel - 1 - pad) // stride
    positions = math.ceil(out / stride)
    before, behind = highest, positions - size - lowest
    if before < 0 or behind < 0:
        return None
    # Tap q of the Conv reads x[i + q - before], which is m; i - m is the step through the kernel.
    steps = np.arange(highest, lowest - 1, -1)
    index = np.arange(stride)[:, None] + pad + stride * steps[None, :]
    index = np.where((index >= 0) & (index < kernel), index, kernel)
    return index, len(steps), (before, behind), positions
