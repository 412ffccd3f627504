"""Convolutions of one and three dimensions, and transposed ones, as convolutions of two dimensions."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, int_of, ints_of, is_float
from ..import_qat.stored import is_static

MOST_ENTRIES = 4_000_000
"""Most weights that a rewritten operator may have."""

_POOLS = frozenset({"AveragePool", "MaxPool", "LpPool"})


def lift_one_dimension(edit: GraphEditor, node: ir.Node) -> bool:
    """Conv, ConvTranspose and pooling of sequences work on images of height 1."""
    if node.op_type not in _POOLS | {"Conv", "ConvTranspose"} or node.domain or len(node.outputs) != 1:
        return False
    dims = shapes.dims_of(node.inputs[0])
    if dims is None or len(dims) != 3 or not is_float(node.outputs[0]):
        return False
    inputs = list(node.inputs)
    name = str(node.name)
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = constant_of(inputs[1])
        if weight is None:
            return False
        inputs[1] = edit.constant(f"{name}.weight", weight[:, :, None, :])
    wide: dict[str, int | float | str | list[int]] = {}
    for key, attribute in node.attributes.items():
        value = attribute.value
        if key in ("kernel_shape", "strides", "dilations"):
            wide[key] = [1, *value]
        elif key == "pads":
            wide[key] = [0, value[0], 0, value[1]]
        elif key == "output_padding":
            wide[key] = [0, *value]
        elif key == "output_shape":
            wide[key] = [1, *value]
        else:
            wide[key] = value
    axis = edit.constant(f"{name}.height", np.array([2]))
    inputs[0] = edit.at(node).add("Unsqueeze", [inputs[0], axis], f"{name}/image")
    image = edit.at(node).add(node.op_type, inputs, f"{name}/over_image", wide)
    edit.substitute(node, "Squeeze", [image, axis])
    return True


def fold_depth(edit: GraphEditor, node: ir.Node) -> bool:
    """A convolution of three dimensions is one of two, with the depth among the channels.

    The weight from depth d of a channel to depth e of another is the slice of the kernel that lies between
    them, or zero.
    """
    if node.op_type != "Conv" or node.domain or not is_float(node.outputs[0]):
        return False
    weight, static = constant_of(node.inputs[1]), _sizes(node)
    strides, pads = ints_of(node, "strides"), ints_of(node, "pads")
    dilations = ints_of(node, "dilations")
    if weight is None or weight.ndim != 5 or static is None or not (strides and pads and dilations):
        return False
    depth = static[1]
    out_depth = (depth + pads[0] + pads[3] - dilations[0] * (weight.shape[2] - 1) - 1) // strides[0] + 1
    outs, ins = weight.shape[:2]
    entries = outs * out_depth * ins * depth * math.prod(weight.shape[3:])
    if entries > MOST_ENTRIES or out_depth < 1:
        return False
    flat = np.zeros((outs, out_depth, ins, depth, *weight.shape[3:]), weight.dtype)
    for place in range(out_depth):
        for tap in range(weight.shape[2]):
            source = place * strides[0] - pads[0] + tap * dilations[0]
            if 0 <= source < depth:
                flat[:, place, :, source] = weight[:, :, tap]
    name = str(node.name)
    kernel = flat.reshape(outs * out_depth, ins * depth, *weight.shape[3:])
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    inputs = [
        edit.at(node).add(
            "Reshape",
            [node.inputs[0], edit.constant(f"{name}.flat", np.array([-1, static[0] * depth, *static[2:]]))],
            f"{name}/flat",
        ),
        edit.constant(f"{name}.weight", kernel),
    ]
    if bias is not None:
        inputs.append(edit.constant(f"{name}.bias", np.repeat(bias, out_depth)))
    attributes = {
        "kernel_shape": list(weight.shape[3:]),
        "strides": strides[1:],
        "dilations": dilations[1:],
        "pads": [pads[1], pads[2], pads[4], pads[5]],
        "group": int_of(node, "group", 1),
    }
    image = edit.at(node).add("Conv", inputs, f"{name}/over_images", attributes)
    size = [
        (n + p + q - d * (k - 1) - 1) // s + 1
        for n, p, q, d, k, s in zip(
            static[2:], pads[1:3], pads[4:6], dilations[1:], weight.shape[3:], strides[1:], strict=True
        )
    ]
    target = edit.constant(f"{name}.shape", np.array([-1, outs, out_depth, *size]))
    edit.substitute(node, "Reshape", [image, target])
    return True


def average_by_axes(edit: GraphEditor, node: ir.Node) -> bool:
    """Averages over blocks are averages over images, and then along the depth.

    What is counted in a window is a product over its axes, so that holds for any padding.
    """
    if node.op_type != "AveragePool" or node.domain:
        return False
    before, after = shapes.static_of_sample(node.inputs[0]), shapes.static_of_sample(node.outputs[0])
    kernel, strides = ints_of(node, "kernel_shape"), ints_of(node, "strides")
    if before is None or after is None or len(before) != 4:
        return False
    pads, dilations = ints_of(node, "pads"), ints_of(node, "dilations")
    if not (kernel and strides and pads and dilations):
        return False
    name = str(node.name)
    kept = {k: int_of(node, k, 0) for k in ("ceil_mode", "count_include_pad")}
    channels, depth = before[:2]

    def reshaped(value: ir.Value | None, part: str, *shape: int) -> ir.Value:
        return edit.at(node).add(
            "Reshape", [value, edit.constant(f"{name}.shape", np.array([-1, *shape]))], f"{name}/{part}"
        )

    def averaged(value: ir.Value, part: str, axes: list[int | None]) -> ir.Value:
        """Over axes of the block, or None for an axis that stays."""
        window = {
            "kernel_shape": [1 if a is None else kernel[a] for a in axes],
            "strides": [1 if a is None else strides[a] for a in axes],
            "dilations": [1 if a is None else dilations[a] for a in axes],
            "pads": [0 if a is None else pads[a + end] for end in (0, 3) for a in axes],
        }
        return edit.at(node).add("AveragePool", [value], f"{name}/{part}", window | kept)

    images = reshaped(node.inputs[0], "images", channels * depth, *before[2:])
    small = averaged(images, "over_images", [1, 2])
    columns = reshaped(small, "columns", channels, depth, after[2] * after[3])
    value = averaged(columns, "over_depth", [0, None])
    edit.substitute(node, "Reshape", [value, edit.constant(f"{name}.shape", np.array([-1, *after]))])
    return True


def transposed(edit: GraphEditor, node: ir.Node) -> bool:
    """A ConvTranspose of two dimensions is a Conv that makes every phase of the stride, and moves.

    Output t = s i + r takes x[m] times w[t + p - s m] (pads p, stride s): for each phase r a convolution of
    its own over x, computed as channels of one Conv; DepthToSpace by Reshape and Transpose interleaves them.
    """
    if node.op_type != "ConvTranspose" or node.domain or not is_float(node.outputs[0]):
        return False
    weight, static = _numbers(node.inputs[1]), _sizes(node)
    out = shapes.static_of_sample(node.outputs[0])
    if weight is None or weight.ndim != 4 or static is None or out is None or len(out) != 3:
        return False
    strides = ints_of(node, "strides") or [1, 1]
    dilations, group = ints_of(node, "dilations") or [1, 1], int_of(node, "group", 1)
    pads = _transposed_pads(node, static[1:], out[1:], weight.shape[2:], strides, dilations)
    if pads is None:
        return False
    spread = np.zeros(
        (*weight.shape[:2], *((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))),
        weight.dtype,
    )
    spread[:, :, :: dilations[0], :: dilations[1]] = weight
    axes = [
        _phases(n, o, k, s, p)
        for n, o, k, s, p in zip(static[1:], out[1:], spread.shape[2:], strides, pads, strict=True)
    ]
    if any(a is None for a in axes):
        return False
    (rows, taps_y, pads_y, size_y), (columns, taps_x, pads_x, size_x) = (a for a in axes if a is not None)
    outs, s_y, s_x = weight.shape[1] * group, strides[0], strides[1]
    # (in per group, group, out per group, phase, tap) for both axes; taps outside the kernel are zero.
    padded = np.pad(spread, ((0, 0), (0, 0), (0, 1), (0, 1)))
    picked = padded[:, :, rows][:, :, :, :, columns]  # (C, M, s_y, taps_y, s_x, taps_x)
    picked = picked.reshape(group, weight.shape[0] // group, *picked.shape[1:])
    kernel = picked.transpose(0, 2, 3, 5, 1, 4, 6).reshape(
        outs * s_y * s_x, weight.shape[0] // group, taps_y, taps_x
    )
    name = str(node.name)
    inputs = [node.inputs[0], _picked(edit, node, 1, kernel)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        inputs.append(_picked(edit, node, 2, np.repeat(np.arange(outs) + 1, s_y * s_x)))
    attributes = {
        "kernel_shape": [taps_y, taps_x],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [pads_y[0], pads_x[0], pads_y[1], pads_x[1]],
        "group": group,
    }
    if s_y == s_x == 1:
        edit.substitute(node, "Conv", inputs, attributes)
        return True
    value = edit.at(node).add("Conv", inputs, f"{name}/phases", attributes)
    split = edit.constant(f"{name}.split", np.array([-1, outs, s_y, s_x, size_y, size_x]))
    value = edit.at(node).add("Reshape", [value, split], f"{name}/split")
    value = edit.at(node).add("Transpose", [value], f"{name}/interleave", {"perm": [0, 1, 4, 2, 5, 3]})
    whole = [size_y * s_y, size_x * s_x]
    joined = edit.constant(f"{name}.shape", np.array([-1, outs, *whole]))
    if whole == out[1:]:
        edit.substitute(node, "Reshape", [value, joined])
        return True
    value = edit.at(node).add("Reshape", [value, joined], f"{name}/joined")
    limits = [np.array([0, 0]), np.array(out[1:]), np.array([2, 3])]
    edit.substitute(
        node, "Slice", [value, *(edit.constant(f"{name}.crop_{i}", a) for i, a in enumerate(limits))]
    )
    return True


def _numbers(weight: ir.Value | None) -> np.ndarray | None:
    """The numbers of the elements of a weight, from 1 on, in its shape; None where it depends on an input."""
    static = shapes.static_of(weight)
    if static is None or (constant_of(weight) is None and not is_static(weight)):
        return None
    return np.arange(1, math.prod(static) + 1).reshape(static)


def _picked(edit: GraphEditor, node: ir.Node, index: int, numbers: np.ndarray) -> ir.Value:
    """Elements of an input by their numbers, 0 for a zero; what is quantized is moved as it is."""
    value, name = node.inputs[index], f"{node.name}.{('', 'weight', 'bias')[index]}"
    array = constant_of(value)
    if array is not None:
        return edit.constant(name, np.append(np.zeros(1, array.dtype), array.ravel())[numbers])
    assert value is not None
    assert value.dtype is not None
    flat = edit.at(node).add(
        "Reshape", [value, edit.constant(f"{name}.flat", np.array([-1]))], f"{name}/flat"
    )
    if not numbers.all():
        zero = edit.constant(f"{name}.zero", np.zeros(1, value.dtype.numpy()))
        flat = edit.at(node).add("Concat", [flat, zero], f"{name}/and_zero", {"axis": 0})
    places = edit.constant(f"{name}.places", numbers.ravel() - 1)  # -1 is the zero at the end
    picked = edit.at(node).add("Gather", [flat, places], f"{name}/picked", {"axis": 0})
    shape = edit.constant(f"{name}.shape", np.array(numbers.shape))
    return edit.at(node).add("Reshape", [picked, shape], f"{name}/shaped")


def _sizes(node: ir.Node) -> list[int] | None:
    """Channels and spatial sizes of the first input, where known."""
    return shapes.static_of_sample(node.inputs[0])


def _transposed_pads(
    node: ir.Node,
    sizes: list[int],
    out: list[int],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[int] | None:
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
