"""Average pooling on integers: a sum of the window; the divisor goes into the scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import spread
from ...ir import runtime
from ...ir.integer_editing import IntegerEditor
from .views import View


def lower(node: ir.Node, view: View, edit: IntegerEditor) -> View:
    """Replace AveragePool, GlobalAveragePool, ReduceMean or ReduceSum by a sum.

    What the operator does to a constant, divided by what the sum does to it, is the factor of each output
    position: padding, ``count_include_pad`` and ``ceil_mode`` are so taken from onnxruntime.
    """
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    opset = edit.model.graph.opset_imports.get("", 21)
    if node.op_type == "AveragePool":
        integers = _window_sum(node, view.integers, edit)
    else:
        attributes = {k: v for k, v in node.attributes.items() if k in {"keepdims", "noop_with_empty_axes"}}
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        if node.op_type == "GlobalAveragePool":
            assert data.shape is not None
            axes = edit.constant(f"{node.name}_axes", np.arange(2, len(data.shape)), np.int64)
            attributes = {"keepdims": ir.AttrInt64("keepdims", 1)}
        inputs = [view.integers, axes] if axes is not None else [view.integers]
        integers = edit.add("ReduceSum", inputs, edit.take_name(node), list(attributes.values()), like=output)
    ones, scale, offset = (spread(a, data) for a in (np.ones(1), view.scale, view.offset))
    summing = integers.producer()
    assert summing is not None

    def pooled(array: np.ndarray) -> np.ndarray:
        return runtime.run_nodes([node], {data: array}, [output], opset)[0]

    (summed,) = runtime.run_nodes([summing], {view.integers: ones}, [integers], opset)
    factor = pooled(ones) / np.where(summed > 0, summed, 1.0)
    return View(
        integers, _narrow(factor * _over_window(pooled(scale), pooled(ones))), _narrow(pooled(offset))
    )


def _over_window(pooled_scale: np.ndarray, pooled_ones: np.ndarray) -> np.ndarray:
    """The scale of a channel, undisturbed by padding that the pooling counted in."""
    return np.asarray(pooled_scale / np.where(pooled_ones != 0, pooled_ones, 1.0))


def _narrow(array: np.ndarray) -> np.ndarray:
    """Drop axes along which nothing changes, so that one scale stays one number."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if np.allclose(array, first, rtol=1e-7, atol=0):
            array = first
    return array


def _window_sum(node: ir.Node, integers: ir.Value, edit: IntegerEditor) -> ir.Value:
    """A depthwise convolution with ones, padded so that it has the pooling's output size."""
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    assert data.shape is not None
    assert output.shape is not None
    kernel = list(node.attributes.get_ints("kernel_shape", []))
    space = len(kernel)
    channels = int(data.shape[1])  # type: ignore[arg-type]
    strides = list(node.attributes.get_ints("strides", []) or [1] * space)
    dilations = list(node.attributes.get_ints("dilations", []) or [1] * space)
    pads = list(node.attributes.get_ints("pads", []) or [0] * (2 * space))
    sizes = [(int(data.shape[2 + i]), int(output.shape[2 + i])) for i in range(space)]  # type: ignore[arg-type]
    total = [(o - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - n for i, (n, o) in enumerate(sizes)]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        begin = [max(0, t) // 2 for t in total]
    elif auto == "SAME_LOWER":
        begin = [(max(0, t) + 1) // 2 for t in total]
    else:
        begin = pads[:space]
    end = [max(0, t - b) for t, b in zip(total, begin, strict=True)]
    weight = edit.constant(f"{node.name}_ones", np.ones((channels, 1, *kernel)))
    attributes = {
        "group": channels,
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": [*begin, *end],
    }
    return edit.add("Conv", [integers, weight], edit.take_name(node), attributes, like=output)
