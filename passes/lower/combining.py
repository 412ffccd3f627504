"""Operators on several encrypted elements, on integers: moved, side by side, chosen, multiplied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import carried, spread
from ...analysis.regions.elementwise import ElementwiseProbe
from ...analysis.regions.regions import JOINS, POOLS
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.movement import FILLS, Movement, may_move
from .views import RATIO_TOLERANCE, View, rank_of

WHOLE_NUMBER_DISTANCE = 1e-3
"""How far from an integer a constant may be, in units of the scale (float32 holds it no better)."""


def move(node: ir.Node, movement: Movement, views: Mapping[ir.Value, View], edit: IntegerEditor) -> View:
    """An operator that copies elements: on integers it does the same, and scales go where their elements go.

    Raises:
        UnsupportedError: A constant between the elements is no integer in their scale.
    """
    output = node.outputs[0]
    inputs = [views[v].integers if v is not None and v in views else v for v in node.inputs]
    first = next(iter(views.values()))
    if movement.filled.any():
        _check_offsets(node, views)
        unit = float(first.scale.reshape(-1)[0])
        inputs = [_in_units(node, v, unit, edit) for v in inputs]
    integers = edit.add(
        node.op_type, inputs, edit.take_name(node), list(node.attributes.values()), like=output
    )
    return View(
        integers,
        _moved(node, movement, {v: view.scale for v, view in views.items()}, True),
        _moved(node, movement, {v: view.offset for v, view in views.items()}, False),
    )


def _moved(
    node: ir.Node, movement: Movement, arrays: Mapping[ir.Value, np.ndarray], is_scale: bool
) -> np.ndarray:
    """What a movement makes of scales (a constant has that of the first tensor) or offsets (it has none)."""
    first = next(iter(arrays.values()))
    rank = rank_of(node.outputs[0])
    if all(
        a.size == 1 and abs(a.flat[0] - first.flat[0]) <= RATIO_TOLERANCE * abs(first.flat[0])
        for a in arrays.values()
    ):
        return first.reshape([1] * rank)
    moved = movement.apply(*(spread(arrays[v], v).astype(np.float64) for v in movement.sources))
    moved = np.where(movement.filled, first.flat[0] if is_scale else 0.0, moved)
    return narrow(moved)


def narrow(array: np.ndarray) -> np.ndarray:
    """Drop axes along which nothing changes, so that one scale stays one number."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if np.allclose(array, first, rtol=1e-7, atol=0):
            array = first
    return array


def _in_units(node: ir.Node, value: ir.Value | None, unit: float, edit: IntegerEditor) -> ir.Value | None:
    """A float constant of an operator that fills with it, as integers."""
    constant = constant_of(value)
    if node.op_type not in FILLS or constant is None or constant.dtype != np.float32 or not np.any(constant):
        return value
    whole = np.rint(constant.astype(np.float64) / unit)
    if np.any(np.abs(whole - constant / unit) > WHOLE_NUMBER_DISTANCE * np.maximum(1, np.abs(whole))):
        raise UnsupportedError(
            "a constant between encrypted elements is not on their grid",
            node=node.name or "",
            op=node.op_type,
            found=f"{constant.reshape(-1)[0]:g} among multiples of {unit:g}",
            allowed="multiples of the scale",
            do="quantize the float model with the quantize pass, which rounds such constants",
        )
    return edit.constant(f"{node.name}_integers", whole)


def shift(node: ir.Node, views: Mapping[ir.Value, View]) -> View | None:
    """A constant added to a tensor that is then moved, averaged or added up: it goes into the offset.

    None for any other node: in front of a function a constant is a part of the table.
    """
    if node.op_type not in ("Add", "Sub") or len(node.inputs) != 2:
        return None
    view, constant = views.get(node.inputs[0]), constant_of(node.inputs[1])  # type: ignore[arg-type]
    readers = node.outputs[0].consumers()
    needed = any(may_move(n) or n.op_type in POOLS or _adds_up(n) for n in readers)
    if view is None or constant is None or not needed:
        return None
    rank = rank_of(node.outputs[0])
    if constant.ndim > rank:
        return None
    added = constant.astype(np.float64).reshape([1] * (rank - constant.ndim) + list(constant.shape))
    return View(view.integers, view.scale, view.offset + (added if node.op_type == "Add" else -added))


def _adds_up(node: ir.Node) -> bool:
    return node.op_type in JOINS and len(variable_inputs(node)) == 2


def chooses(node: ir.Node, elementwise: ElementwiseProbe) -> bool:
    """Whether a maximum or minimum is one of several encrypted elements, not of one and a constant.

    A pool may reach a single place besides its padding: then it is a function of one element.
    """
    variable = variable_inputs(node)
    if node.op_type in ("Max", "Min"):
        return len(variable) == len([v for v in node.inputs if v is not None]) > 1
    return len(variable) == 1 and not elementwise(node, variable)


def choose(node: ir.Node, views: Mapping[ir.Value, View], edit: IntegerEditor) -> View:
    """A maximum or minimum of integers; all that are compared must have one scale.

    Raises:
        UnsupportedError: They do not.
    """
    output = node.outputs[0]
    _check_offsets(node, views)
    scales = [v.scale for v in views.values()]
    if len(scales) > 1:
        same = all(np.allclose(s, scales[0], rtol=1e-5, atol=0) for s in scales)
        scale = scales[0] if same and np.all(scales[0] > 0) else None
    else:
        (value,) = views
        scale = carried([node], value, scales[0]) if np.all(scales[0] > 0) else None
    if scale is None:
        raise UnsupportedError(
            "the largest of elements with different scales is asked for",
            node=node.name or "",
            op=node.op_type,
            found=f"{sum(s.size for s in scales)} scales",
            allowed="one positive scale for all that is compared",
            do="put quantizers of one scale in front of this node",
        )
    inputs = [views[v].integers if v is not None and v in views else v for v in node.inputs]
    integers = edit.add(
        node.op_type, inputs, edit.take_name(node), list(node.attributes.values()), like=output
    )
    rank = rank_of(output)
    return View(
        integers,
        narrow(np.asarray(scale)).reshape([1] * rank) if np.size(scale) == 1 else narrow(np.asarray(scale)),
        np.zeros([1] * rank, np.float32),
    )


def multiplies(node: ir.Node) -> bool:
    """Whether two encrypted tensors are multiplied; the square of each element is a function of one."""
    variable = variable_inputs(node)
    if len(node.inputs) != 2 or any(constant_of(v) is not None for v in node.inputs):
        return False
    return len(variable) == 2 or node.op_type == "MatMul"


def multiply(node: ir.Node, views: Mapping[ir.Value, View], edit: IntegerEditor) -> View:
    """A product of integers; its scale is the product of their scales."""
    output = node.outputs[0]
    _check_offsets(node, views)
    left, right = (views[v] for v in node.inputs if v is not None)
    if node.op_type == "MatMul" and left.scale.size * right.scale.size > 1:
        raise UnsupportedError(
            "a matrix product of encrypted tensors with several scales",
            node=node.name or "",
            op=node.op_type,
            found=f"{left.scale.size} and {right.scale.size} scales",
            allowed="one scale for each tensor",
            do="put a quantizer with one scale in front of this node",
        )
    integers = edit.add(node.op_type, [left.integers, right.integers], edit.take_name(node), like=output)
    rank = rank_of(output)
    if node.op_type == "MatMul":
        scale = np.full([1] * rank, float(left.scale.flat[0]) * float(right.scale.flat[0]))
    else:
        scale = np.asarray(left.scale, np.float64) * np.asarray(right.scale, np.float64)
        scale = scale.reshape([1] * (rank - scale.ndim) + list(scale.shape))
    return View(integers, scale, np.zeros([1] * rank, np.float32))


def _check_offsets(node: ir.Node, views: Mapping[ir.Value, View]) -> None:
    if any(np.any(v.offset) for v in views.values()):
        raise UnsupportedError(
            "this operator reads an accumulator that is not quantized",
            node=node.name or "",
            op=node.op_type,
            found="a tensor with an offset",
            allowed="the output of QuantizeLinear and DequantizeLinear",
            do="put a quantizer in front of this node",
        )
