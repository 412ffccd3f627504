"""Which single linear operator has the shape of two with something between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.regions.linear import Linear
from ....ir.shapes import BATCH, dims_of
from .between import Curve, Stage

MAX_MERGED_INPUTS = 4096
"""Inputs that one output of a merged operator may see: the fit solves a system of that size."""
SINGLES = frozenset({"Squeeze", "Unsqueeze"})
"""Layout that cannot reorder elements: where the shape is the same again behind them, nothing has moved."""


@dataclass(frozen=True)
class Window:
    """Which inputs one output of a convolution or pooling sees, one entry for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Inputs from the first to the last that is seen."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def attributes(self) -> dict[str, list[int]]:
        """As a Conv states it."""
        return {
            "dilations": list(self.dilations),
            "kernel_shape": list(self.kernel),
            "pads": [*self.begins, *self.ends],
            "strides": list(self.strides),
        }


@dataclass(frozen=True)
class Form:
    """The operator that two are merged into; it is of the kind of the second.

    Attributes:
        x: What it reads.
        flat: Whether a Flatten has to make a matrix of ``x``.
        window: Window of a convolution.
        groups: Groups of a convolution.
    """

    x: ir.Value
    flat: bool = False
    window: Window | None = None
    groups: int = 1


def form_of(first: Linear, stages: Sequence[Stage], second: Linear) -> Form | str:
    """The form of two linear operators with ``stages`` between them, or why there is none."""
    x1, x2 = first.node.inputs[0], second.node.inputs[0]
    assert x1 is not None
    given, middle = dims_of(x1), dims_of(x2)
    if given is None or middle is None or not all(isinstance(d, int) for d in [*given[1:], *middle[1:]]):
        return "the shapes around it are not known"
    if given[0] != BATCH or middle[0] != BATCH:
        return "samples do not stay on axis 0"
    moved = [s for s in stages if not isinstance(s, Curve)]
    if second.node.op_type == "Conv":
        return _convolution(first, moved, second, x1)
    if len(middle) > 2:
        if first.node.op_type != "MatMul" or moved or len(given) != len(middle):
            return f"{second.node.name} ({second.node.op_type}) works along another axis than it"
        return _within_limit(Form(x1), first.weight.shape[0])
    return _within_limit(Form(x1, flat=len(given) > 2), math.prod(d for d in given[1:] if isinstance(d, int)))


def _within_limit(form: Form, inputs: int) -> Form | str:
    if inputs > MAX_MERGED_INPUTS:
        return f"each output of the merged operator would see {inputs} inputs, more than {MAX_MERGED_INPUTS}"
    return form


def _convolution(first: Linear, moved: Sequence[ir.Node], second: Linear, x1: ir.Value) -> Form | str:
    if first.node.op_type != "Conv":
        return f"a {first.node.op_type} and the Conv {second.node.name} are not one convolution"
    windows = []
    before = first.node
    for node in (first.node, *moved, second.node):
        if node.op_type in SINGLES and _channels(node.inputs[0]) == _channels(node.outputs[0]):
            continue
        if node is not first.node and dims_of(before.outputs[0]) != dims_of(node.inputs[0]):
            return f"{before.name} and {node.name} see images of different shapes"
        before = node
        window = window_of(node)
        if isinstance(window, str):
            return window
        windows.append(window)
    groups = math.gcd(first.groups, second.groups)
    merged = compose(windows)
    channels = first.weight.shape[1] * first.groups // groups
    return _within_limit(Form(x1, window=merged, groups=groups), channels * math.prod(merged.kernel))


def _channels(value: ir.Value | None) -> object:
    return (dims_of(value) or [None, None])[1]


def window_of(node: ir.Node) -> Window | str:
    """The window of a Conv or pooling operator, or why it has none that composes."""
    dims = dims_of(node.inputs[0])
    if dims is None or not all(isinstance(d, int) for d in dims[2:]):
        return f"the shape that {node.name} ({node.op_type}) reads is not known"
    size = tuple(int(str(d)) for d in dims[2:])
    ones, zeros = [1] * len(size), [0] * len(size)
    get = node.attributes.get_ints
    if node.op_type.startswith("Global"):
        return Window(size, tuple(ones), tuple(ones), tuple(zeros), tuple(zeros))
    if node.attributes.get_int("ceil_mode", 0):
        return f"{node.name} ({node.op_type}) rounds its output shape up"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return f"{node.name} ({node.op_type}) has no explicit pads"
    weight = node.inputs[1] if node.op_type == "Conv" else None
    if weight is not None and weight.const_value is not None:
        kernel = list(weight.const_value.shape.numpy()[2:])
    elif "kernel_shape" in node.attributes:
        kernel = list(get("kernel_shape", []))
    else:
        return f"{node.name} ({node.op_type}) is no window of a convolution"
    pads = list(get("pads", zeros + zeros))
    return Window(
        tuple(kernel),
        tuple(get("strides", ones)),
        tuple(get("dilations", ones)),
        tuple(pads[: len(size)]),
        tuple(pads[len(size) :]),
    )


def compose(windows: Sequence[Window]) -> Window:
    """The window of one after the other: the same output shape, and every input that any of them sees.

    Padding goes to the front of the first one, where it holds zeros of the input, not of what stood between.
    """
    axes = []
    for axis in range(len(windows[0].kernel)):
        step = reach = spacing = begin = end = 0
        step = 1
        for w in windows:
            if w.kernel[axis] > 1:
                spacing = math.gcd(spacing, w.dilations[axis] * step)
            reach += (w.kernel[axis] - 1) * w.dilations[axis] * step
            begin += w.begins[axis] * step
            end += w.ends[axis] * step
            step *= w.strides[axis]
        spacing = spacing or 1
        axes.append((reach // spacing + 1, step, spacing, begin, end))
    return Window(*zip(*axes, strict=True))
