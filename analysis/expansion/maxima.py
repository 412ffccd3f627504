"""Maxima and minima as lookups: ``max(x, y) = y + max(x - y, 0)``, a table of the difference."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import constant_of, int_of, variable_inputs
from .editing import ExpansionEditor
from .tournament import Tournament, Window, plan


def expand(node: ir.Node, edit: ExpansionEditor) -> ir.Value:
    """What stands for a Max, Min, MaxPool, ReduceMax or ReduceMin; new nodes are inserted in front of it."""
    if node.op_type in ("Max", "Min"):
        values = [v for v in node.inputs if v is not None]
        while len(values) > 1:
            pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
            values = [p[0] if len(p) == 1 else choose(node, p[0], p[1], edit) for p in pairs]
        return values[0]
    windows = _pooled_windows(node, edit.opset) if node.op_type == "MaxPool" else _reduced_windows(node)
    (current,) = variable_inputs(node)
    for axis, (found, size) in windows.items():  # what strides step over is not compared
        used = sorted(set().union(*found))
        if len(used) < size:
            current = edit.pick(current, used, axis, f"{node.name}_used")
            windows[axis] = [tuple(used.index(p) for p in w) for w in found], len(used)
    for axis, tournament in _in_order(windows, edit.shape(current)):
        current = _along(node, current, axis, tournament, edit)
    return edit.reshape(current, node.outputs[0], f"{node.name}_shape")


def choose(node: ir.Node, first: ir.Value, second: ir.Value, edit: ExpansionEditor) -> ir.Value:
    """The larger (or smaller) of two: ``second + f(first - second)`` with ``f(d)`` that of d and 0."""
    difference = edit.broadcast("Sub", [first, second], f"{node.name}_difference")
    low, high = edit.bounds(difference)
    x, zero, y = (ir.Value(name=n) for n in ("x", "zero", "y"))
    one = ir.Node("", "Min" if node.op_type.endswith("Min") else "Max", [x, zero], outputs=[y])
    inputs = np.arange(low, high + 1, dtype=np.float32)
    (table,) = runtime.run_nodes([one], {x: inputs, zero: np.zeros(1, np.float32)}, [y], edit.opset)
    excess = edit.lookup(difference, table[None], low, f"{node.name}_excess")
    chosen = edit.broadcast("Add", [second, excess], f"{node.name}_chosen")
    # Interval arithmetic does not see that the sum is one of the two.
    function = np.minimum if node.op_type.endswith("Min") else np.maximum
    (a, b), (c, d) = edit.ranges.of(first), edit.ranges.of(second)
    edit.ranges.set(chosen, (function(a, c), function(b, d)))
    return chosen


def _along(
    node: ir.Node, value: ir.Value, axis: int, tournament: Tournament, edit: ExpansionEditor
) -> ir.Value:
    """Run a tournament along one axis, every round at once."""
    known = value
    for pairs in tournament.rounds:
        left, right = (
            edit.pick(known, [p[side] for p in pairs], axis, f"{node.name}_side") for side in (0, 1)
        )
        chosen = choose(node, left, right, edit)
        known = edit.concat([known, chosen], axis, f"{node.name}_known")
    return edit.pick(known, list(tournament.winners), axis, f"{node.name}_winners")


def _in_order(
    windows: dict[int, tuple[list[Window], int]], shape: tuple[int, ...]
) -> list[tuple[int, Tournament]]:
    """The axes in the order that takes the fewest comparisons: each shrinks what the next one sees."""
    plans = {axis: plan(found, size) for axis, (found, size) in windows.items()}

    def total(order: tuple[int, ...]) -> int:
        sizes, count = list(shape), 0
        for axis in order:
            sizes[axis] = 1
            count += plans[axis].comparisons * math.prod(sizes[1:])
            sizes[axis] = len(plans[axis].winners)
        return count

    best = min(permutations(plans), key=total) if len(plans) < 5 else tuple(plans)
    return [(axis, plans[axis]) for axis in best]


def _reduced_windows(node: ir.Node) -> dict[int, tuple[list[Window], int]]:
    """Each reduced axis as one window."""
    (data,) = variable_inputs(node)
    shape = list(data.shape or [])
    axes = node.attributes.get_ints("axes", [])
    if len(node.inputs) > 1 and (given := constant_of(node.inputs[1])) is not None:
        axes = given.reshape(-1).tolist()
    if not axes:
        axes = [] if int_of(node, "noop_with_empty_axes", 0) else range(1, len(shape))
    found = sorted({int(a) % len(shape) for a in axes})
    return {a: ([tuple(range(int(shape[a])))], int(shape[a])) for a in found}  # type: ignore[arg-type]


def _pooled_windows(node: ir.Node, opset: int) -> dict[int, tuple[list[Window], int]]:
    """The windows along each axis: max-pooling by itself along that axis, run on every unit vector.

    So padding, dilations and ``ceil_mode`` mean here what they mean in onnxruntime.
    """
    (data,) = variable_inputs(node)
    dims = len(data.shape or []) - 2
    found = {}
    for i in range(dims):
        size = int(data.shape[2 + i])  # type: ignore[index, arg-type]
        attributes: list[ir.Attr] = []
        for attribute in node.attributes.values():
            if attribute.name in ("kernel_shape", "strides", "dilations"):
                attributes.append(ir.AttrInt64s(attribute.name, [list(attribute.as_ints())[i]]))
            elif attribute.name == "pads":
                pads = list(attribute.as_ints())
                attributes.append(ir.AttrInt64s("pads", [pads[i], pads[dims + i]]))
            elif attribute.name in ("ceil_mode", "auto_pad"):
                attributes.append(attribute)
        x, y = ir.Value(name="x"), ir.Value(name="y")
        one = ir.Node("", "MaxPool", [x], attributes, outputs=[y])
        units = np.eye(size, dtype=np.float32)[:, None, :]
        (seen,) = runtime.run_nodes([one], {x: units}, [y], opset)
        windows = [tuple(int(p) for p in np.flatnonzero(column > 0.5)) for column in seen[:, 0, :].T]
        found[2 + i] = windows, size
    return found
