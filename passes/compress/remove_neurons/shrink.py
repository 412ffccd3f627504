"""Removing what is not kept of every tensor: weights, constants, shapes and the operators that name sizes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ....analysis.regions.linear import Linear
from ....ir.editing import GraphEditor, set_attributes
from ....ir.graph import constant_of
from .adapt import Change, Keep, adapt
from .coupling import input_of, weight_of


def shrink(model: ir.Model, linears: Mapping[ir.Node, Linear], keep: Mapping[ir.Value, Keep]) -> None:
    """Remove what is not kept of every tensor of the model, in place.

    Args:
        model: The model.
        linears: Its linear operators.
        keep: What is left of the tensors that lose something.
    """
    edit = GraphEditor(model)
    made: dict[tuple[ir.Value | None, bytes], ir.Value] = {}
    for node in list(model.graph):
        if node in linears:
            change = _adapt_linear(linears[node], keep)
        else:
            adapted = adapt(node, keep)
            assert adapted is not None, f"{node.name} was tried before"
            change = adapted
        _apply(edit, node, change, made)
    for (old, _), new in made.items():
        if old is not None and not old.uses() and old.name in model.graph.initializers:
            name = str(old.name)
            del model.graph.initializers[name]
            new.name = name
    for value, kept in keep.items():
        assert value.shape is not None
        dims = list(value.shape.dims)
        dims[kept.axis] = len(kept.indices)
        value.shape = ir.Shape(dims)


def _adapt_linear(linear: Linear, keep: Mapping[ir.Value, Keep]) -> Change:
    node, change = linear.node, Change(linear.node.op_type)
    x, output = input_of(node), node.outputs[0]
    weight = constant_of(weight_of(node))
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None
    small = weight
    if output in keep:
        small = keep[output].of(small, linear.out_axis)
        # A bias may also be one number for all channels.
        if bias is not None and bias.ndim and bias.shape[-1] == linear.channels > 1:
            change.constants[2] = keep[output].of(bias, bias.ndim - 1)
    if x in keep and linear.groups == 1:
        small = keep[x].of(small, 1 - linear.out_axis)
    if output in keep and linear.groups > 1:
        size = linear.channels // linear.groups
        change.attributes["group"] = len(keep[output].indices) // size
    if small is not weight:
        change.constants[1] = small
    return change


def _apply(
    edit: GraphEditor, node: ir.Node, change: Change, made: dict[tuple[ir.Value | None, bytes], ir.Value]
) -> None:
    if change.op_type != node.op_type:
        node.op_type = change.op_type
        node.attributes.clear()
        node.resize_inputs(2)
    if change.drop or change.attributes:
        present = {k: a.value for k, a in node.attributes.items() if k not in change.drop}
        present = {k: list(v) if isinstance(v, tuple) else v for k, v in present.items()}
        set_attributes(node, {**present, **change.attributes})
    for index, array in change.constants.items():
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        key = (old, array.tobytes() + repr(array.shape).encode())
        if key not in made:
            name = str(old.name) if old is not None else f"{node.name}_{index}"
            made[key] = edit.constant(name, array)
        node.replace_input_with(index, made[key])
