"""How an operator that is not linear follows when its tensors lose indices, and whether it really does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.graph import constant_of, int_of
from .dependence import random_values

_PER_CHANNEL = frozenset({"BatchNormalization", "InstanceNormalization"})
"""Operators whose one-dimensional constants belong to axis 1; all others broadcast theirs."""


def size_at(value: ir.Value, axis: int) -> int:
    """The static size of an axis."""
    assert value.shape is not None
    return int(str(value.shape[axis]))


@dataclass(frozen=True)
class Keep:
    """What is left of a tensor.

    Attributes:
        axis: The axis that loses indices.
        indices: The indices that stay, ascending.
        size: How many there were.
    """

    axis: int
    indices: np.ndarray
    size: int

    def of(self, array: np.ndarray, axis: int | None = None) -> np.ndarray:
        """The part of ``array`` that stays."""
        return np.take(array, self.indices, self.axis if axis is None else axis)


@dataclass
class Change:
    """How a node has to change.

    Attributes:
        op_type: Its operator.
        constants: New content of constant inputs, by index.
        attributes: New attributes, others stay.
        drop: Attributes that go.
    """

    op_type: str
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()


def adapt(node: ir.Node, keep: Mapping[ir.Value, Keep]) -> Change | None:
    """What has to change in an operator that is not linear; None where it does not follow.

    Args:
        node: The operator.
        keep: What is left of tensors.
    """
    change = Change(node.op_type)
    given = keep.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    kept = keep.get(node.outputs[0])
    if node.op_type in ("Reshape", "Expand"):
        if kept is not None:
            change.constants[1] = _target(node, kept)
    elif node.op_type == "Split":
        if any(o in keep for o in node.outputs):
            _split(node, keep, change)
    elif node.op_type in ("Slice", "Gather"):
        if given is not None and not _select(node, given, kept, change):
            return None
    elif kept is not None:
        _per_channel(node, kept, change)
    return change


def _target(node: ir.Node, kept: Keep) -> np.ndarray:
    target = constant_of(node.inputs[1])
    shape = node.outputs[0].shape
    assert target is not None
    assert shape is not None
    place = kept.axis - (len(shape) - len(target))
    target = target.copy()
    if place >= 0 and target[place] > 0 and not (node.op_type == "Expand" and target[place] == 1):
        target[place] = len(kept.indices)
    return target


def _split(node: ir.Node, keep: Mapping[ir.Value, Keep], change: Change) -> None:
    axis = int_of(node, "axis", 0)
    sizes = []
    for output in node.outputs:
        assert output.shape is not None
        place = axis % len(output.shape)
        k = keep.get(output)
        sizes.append(len(k.indices) if k is not None and k.axis == place else size_at(output, place))
    change.constants[1] = np.array(sizes, np.int64)
    change.drop = frozenset({"num_outputs"})


@dataclass(frozen=True)
class _Selection:
    """What a Slice or a Gather takes.

    Attributes:
        axes: Along which it selects.
        indices: What it takes along the axis that shrinks, counted from 0; None where that stays whole.
    """

    axes: list[int]
    indices: np.ndarray | None


def _selection_of(node: ir.Node, axis: int, size: int, rank: int) -> _Selection | None:
    """What a node takes of ``size`` places along ``axis``; None where it is computed, or of several axes."""
    if node.op_type == "Gather":
        axes = [int_of(node, "axis", 0) % rank]
        indices = constant_of(node.inputs[1])
        if indices is None or (axes == [axis] and indices.ndim != 1):
            return None
        return _Selection(axes, indices % size if axes == [axis] else None)
    parts = [constant_of(v) for v in node.inputs[1:]]
    if any(p is None for p, v in zip(parts, node.inputs[1:], strict=True) if v is not None):
        return None
    starts, ends = parts[0], parts[1]
    assert starts is not None
    assert ends is not None
    axes = list(range(len(starts)))
    if len(parts) > 2 and parts[2] is not None:
        axes = [int(a) % rank for a in parts[2]]
    if axis not in axes:
        return _Selection(axes, None)
    steps = parts[3] if len(parts) > 3 and parts[3] is not None else np.ones(len(starts), np.int64)
    i = axes.index(axis)
    return _Selection(axes, np.arange(size)[slice_of(starts[i], ends[i], steps[i], size)])


def _select(node: ir.Node, given: Keep, kept: Keep | None, change: Change) -> bool:
    """A Slice or Gather along the axis that shrinks takes what is left of its selection, as a Gather."""
    x = node.inputs[0]
    assert x is not None
    assert x.shape is not None
    selection = _selection_of(node, given.axis, given.size, len(x.shape))
    if selection is None:
        return False
    selected = selection.indices
    if selected is None or not len(selected):
        return True
    wanted = selected[np.isin(selected, given.indices)]
    if kept is None or kept.axis != given.axis:
        if len(wanted) != len(selected):
            return False
    elif not np.array_equal(selected[kept.indices], wanted):
        return False
    return _select_places(node, selection, given.axis, np.searchsorted(given.indices, wanted), change)


def _select_places(
    node: ir.Node, selection: _Selection, axis: int, places: np.ndarray, change: Change
) -> bool:
    """Let a Slice or Gather take ``places`` along ``axis``; False where no one node can."""
    selected, axes = selection.indices, selection.axes
    assert selected is not None
    if node.op_type == "Gather":
        change.constants[1] = places.astype(np.int64)
    elif np.array_equal(selected, np.arange(selected[0], selected[0] + len(selected))):
        i = axes.index(axis)
        for index, number in ((1, places[0]), (2, places[0] + len(places)), (4, 1)):
            old = constant_of(node.inputs[index]) if len(node.inputs) > index else None
            if old is not None:
                new = old.copy()
                new[i] = number
                change.constants[index] = new
    elif len(axes) == 1:
        change.op_type = "Gather"
        change.constants = {1: places.astype(np.int64)}
        change.attributes = {"axis": axis}
    else:
        return False
    return True


def slice_of(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice of an ONNX Slice along one axis (an end before the beginning includes it)."""
    first = int(start) + size if start < 0 else int(start)
    last = int(end) + size if end < 0 else int(end)
    if step > 0:
        return slice(min(max(first, 0), size), min(max(last, 0), size), int(step))
    first, last = min(max(first, 0), size - 1), min(max(last, -1), size - 1)
    return slice(first, None if last < 0 else last, int(step))


def _per_channel(node: ir.Node, kept: Keep, change: Change) -> None:
    """Constants that hold a number for each index of the axis that shrinks."""
    shape = node.outputs[0].shape
    assert shape is not None
    for index, value in enumerate(node.inputs):
        array = constant_of(value)
        if array is None or array.dtype.kind not in "fb":
            continue
        axis = 0 if node.op_type in _PER_CHANNEL else kept.axis - (len(shape) - array.ndim)
        if 0 <= axis < array.ndim and array.shape[axis] == kept.size > 1:
            change.constants[index] = kept.of(array, axis)


def adapts(node: ir.Node, keep: Mapping[ir.Value, Keep], opset: int) -> bool:
    """Whether a changed node computes from what is left exactly what is left of its outputs."""
    try:
        change = adapt(node, keep)
        if change is None:
            return False
        random = np.random.default_rng(0)
        full = {v: _stand_in(v, random) for v in node.inputs if v is not None and constant_of(v) is None}
        wanted = [o for o in node.outputs if o.name]
        before = runtime.run_nodes([node], full, wanted, opset)
        small, stand_ins = _changed_node(
            node, change, {v: keep[v].of(a) if v in keep else a for v, a in full.items()}
        )
        after = runtime.run_nodes([small], stand_ins, [o for o in small.outputs if o.name], opset)
    except Exception:  # noqa: BLE001 - what does not run does not follow
        return False
    for value, a, b in zip(wanted, before, after, strict=True):
        expected = keep[value].of(a) if value in keep else a
        if expected.shape != b.shape:
            return False
        if expected.dtype.kind not in "fiub":  # text
            if not np.array_equal(expected, b):
                return False
        elif not np.allclose(expected, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            return False
    return True


def _stand_in(value: ir.Value, random: np.random.Generator) -> np.ndarray:
    assert value.shape is not None
    return random_values(value, [d if isinstance(d, int) else 2 for d in value.shape], random, least=0.1)


def _changed_node(
    node: ir.Node, change: Change, values: Mapping[ir.Value, np.ndarray]
) -> tuple[ir.Node, dict[ir.Value, np.ndarray]]:
    """A copy of ``node`` with the change, on inputs of its own that hold ``values``."""
    copies = {v: ir.Value(name=v.name, type=v.type) for v in values}
    inputs: list[ir.Value | None] = [copies.get(v, v) if v is not None else None for v in node.inputs]
    inputs = inputs[: 2 if change.op_type == "Gather" else None]
    for index, array in change.constants.items():
        inputs += [None] * (index + 1 - len(inputs))
        inputs[index] = ir.Value(name=f"constant_{index}", const_value=ir.Tensor(np.asarray(array)))
    attributes = [a for a in node.attributes.values() if a.name not in change.drop]
    if change.op_type != node.op_type:
        attributes = []
    attributes += ir.convenience.convert_attributes(change.attributes)
    copy = ir.Node("", change.op_type, inputs, attributes, num_outputs=len(node.outputs))
    for mine, theirs in zip(copy.outputs, node.outputs, strict=True):
        mine.name = theirs.name
    return copy, {copies[v]: a for v, a in values.items()}
