"""Where the fit of a merged operator starts: both operators composed, with lines in place of curves.

Where what stands between is linear already, that is the merged operator, exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear
from ....ir import runtime
from .between import AVERAGE, Curve
from .forms import Form, Window
from .reference import Reference, line
from .sites import Reader

_CHUNK_UNITS = 256
"""Unit vectors that are run at once."""

Step = Callable[[np.ndarray], np.ndarray]


def start_of(first: Linear, reader: Reader, reference: Reference, opset: int) -> np.ndarray:
    """The weight, as the second operator stores it.

    It is read off from the answers to unit inputs, one input at a time, of layers whose curves are the
    least-squares lines on calibration data: one for each neuron or channel.
    """
    steps = [_run(first.node, opset, reader.form)]
    for stage in reader.stages:
        if isinstance(stage, Curve):
            steps.append(_line(stage, reader, reference))
        else:
            steps.append(_run(stage, opset, reader.form))
    steps.append(_run(reader.second.node, opset, reader.form))
    units = _units(first, reader.form)
    answers = []
    for begin in range(0, len(units), _CHUNK_UNITS):
        # The last one is the answer to nothing: the biases.
        given = np.concatenate([units[begin : begin + _CHUNK_UNITS], np.zeros_like(units[:1])])
        for step in steps:
            given = step(given)
        answers.append((given[:-1] - given[-1:]).astype(np.float64))
    found = np.concatenate(answers)
    matrix: np.ndarray = found.reshape(len(found), -1).T
    if reader.form.window is not None:
        return _kernels(matrix, reader.second, reader.form)
    # What the merged operator sees is all that its kind sees: only the orientation is the second one's.
    return np.array(matrix.T if reader.second.node.op_type == "MatMul" else matrix)


def _kernels(matrix: np.ndarray, second: Linear, form: Form) -> np.ndarray:
    """(out, in of all groups times taps) as the weight of a Conv; other groups' inputs are left out."""
    assert form.window is not None
    whole = matrix.reshape(second.channels, form.groups, -1, *form.window.kernel)
    group = np.arange(second.channels) * form.groups // second.channels
    return np.array(whole[np.arange(second.channels), group])


def _units(first: Linear, form: Form) -> np.ndarray:
    """Unit vectors: (inputs of the merged operator, one sample of what it sees), each with a single 1."""
    if form.window is not None:
        return _impulses(first.weight.shape[1] * first.groups, form.window)
    shape = [int(str(d)) for d in list(form.x.shape or [])[1:]]
    if form.flat or len(shape) == 1:
        size = int(np.prod(shape))
        return np.eye(size, dtype=np.float32).reshape(size, *shape)
    return np.eye(shape[-1], dtype=np.float32).reshape(shape[-1], *[1] * (len(shape) - 1), shape[-1])


def _impulses(channels: int, window: Window) -> np.ndarray:
    taps = int(np.prod(window.kernel))
    units = np.zeros((channels * taps, channels, *window.extent), np.float32)
    places = [slice(None), slice(None), *(slice(None, None, d) for d in window.dilations)]
    eye = np.eye(channels * taps, dtype=np.float32)
    units[tuple(places)] = eye.reshape(-1, channels, *window.kernel)
    return units


def _line(curve: Curve, reader: Reader, reference: Reference) -> Step:
    reference.need([curve.root, curve.end])
    x, y = reference[curve.root], reference[curve.end]
    if reader.form.window is not None:
        axes: tuple[int, ...] = (1,)
    elif reader.second.node.op_type == "MatMul" and not reader.form.flat:
        axes = (x.ndim - 1,)
    else:
        axes = tuple(range(1, x.ndim))
    slope, offset = line(x, y, axes)
    return lambda given: (given * slope + offset).astype(np.float32)


def _run(node: ir.Node, opset: int, form: Form) -> Step:
    """A copy of a node on values of its own, without the padding of convolutions, and averages for maxima."""
    x = ir.Value(name="x")
    index = next(i for i, v in enumerate(node.inputs) if v is not None and v.const_value is None)
    inputs = [x if i == index else v for i, v in enumerate(node.inputs)]
    dropped = {"storage_order"} if form.window is None else {"storage_order", "pads"}
    attributes = [a for a in node.attributes.values() if a.name not in dropped]
    op_type = AVERAGE.get(node.op_type, node.op_type)

    def step(given: np.ndarray) -> np.ndarray:
        # Made anew and detached again: a node counts among the users of the graph's constants.
        copy = ir.Node("", op_type, inputs, attributes, num_outputs=1)
        try:
            return runtime.run_nodes([copy], {x: given}, copy.outputs, opset)[0]
        finally:
            for i in range(len(inputs)):
                copy.replace_input_with(i, None)

    return step
