"""Taking neurons out of a site, in place; every tensor on the way gets smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.graph import constant_of, variable_inputs
from ....ir.integer_editing import IntegerEditor
from .absorb import add_behind, apply_linear, input_axis, minimal
from .moves import Moves
from .neurons import Reader, Site, axis_of, same_inputs
from .shaped_lookup import express, rewrite


@dataclass(frozen=True)
class Plan:
    """What a removal does.

    Attributes:
        site: Where.
        gone: (neurons): which go.
        stands_for: (neurons): the neuron that is equal; itself where what goes is constant.
        constant: What the table returns for each element, where that is constant.
        equal: For each reader and input channel the input channel that holds the same.
        axes: For each operator on the way the axis of a sample that shrinks.
    """

    site: Site
    gone: np.ndarray
    stands_for: np.ndarray
    constant: np.ndarray
    equal: tuple[np.ndarray, ...]
    axes: dict[ir.Node, int]


def plan(site: Site, gone: np.ndarray, stands_for: np.ndarray, constant: np.ndarray) -> Plan | None:
    """Plan the removal of neurons; None where some tensor would not stay rectangular.

    Args:
        site: Where.
        gone: (neurons): true for those to remove; some must stay.
        stands_for: (neurons): an equal neuron that stays, or itself for one that is constant.
        constant: Like the table's output: its value where a neuron is constant.
    """
    axes = {}
    for node, _, channel in site.steps():
        axis = axis_of(gone[channel])
        if axis is None:
            return None
        axes[node] = axis
    equal = []
    for reader in site.readers:
        found = same_inputs(reader, site, stands_for)
        channel = site.channel.ravel()[reader.way.source]
        if found is None or axis_of(gone[channel]) != input_axis(reader.linear) % channel.ndim:
            return None
        equal.append(found)
    return Plan(site, gone, stands_for, constant, tuple(equal), axes)


def apply(plan: Plan, edit: IntegerEditor, moves: Moves) -> None:
    """Remove the neurons."""
    site = plan.site
    nodes = [*site.steps()]
    for reader, equal in zip(site.readers, plan.equal, strict=True):
        _shrink_reader(plan, reader, equal, edit, moves)
    alone = _fork(site, edit)
    for node, _, channel in nodes:
        target = alone.get(node, node)
        keep = np.flatnonzero(~_line(plan.gone[channel], plan.axes[node]))
        _shrink_node(target, plan, keep, plan.axes[node], channel.shape, edit)
        shape = [*target.outputs[0].shape][:1] if target.outputs[0].shape is not None else [None]
        sizes = [len(keep) if a == plan.axes[node] else s for a, s in enumerate(channel.shape)]
        target.outputs[0].shape = ir.Shape([*shape, *sizes])


def _line(mask: np.ndarray, axis: int) -> np.ndarray:
    """The mask along its one axis."""
    return np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)[:, 0]


def _shrink_reader(plan: Plan, reader: Reader, equal: np.ndarray, edit: IntegerEditor, moves: Moves) -> None:
    linear = reader.linear
    node, source = linear.node, reader.way.source
    channel = plan.site.channel.ravel()[source]
    constant = plan.gone[channel] & (plan.stands_for[channel] == channel)
    arriving = reader.way.slope * plan.constant.ravel()[source] + reader.way.offset
    x = node.inputs[0]
    assert x is not None
    addend = apply_linear(linear, x, np.where(constant, arriving, 0.0), moves.opset)
    axis = input_axis(linear)
    gone, fixed = (_line(m, axis % m.ndim) for m in (plan.gone[channel], constant))
    weight = linear.weight.astype(np.float64)
    place = 0 if node.op_type == "MatMul" else 1
    inputs = np.moveaxis(weight, place, 0).copy()
    for index in np.flatnonzero(gone & ~fixed):
        inputs[equal[index]] += inputs[index]
    kept = np.moveaxis(inputs[~gone], 0, place)
    node.replace_input_with(1, edit.constant(f"{node.name}_weight", kept))
    add_behind(node, addend, edit)


def _fork(site: Site, edit: IntegerEditor) -> dict[ir.Node, ir.Node]:
    """Copies of the operators in front of the table, for it alone, where others read them too."""
    before = [site.linear.node, *site.way.nodes]
    if site.table.rounding is not None:
        before.append(site.table.rounding.node)
    if all(len(n.outputs[0].uses()) == 1 for n in before):
        return {}
    edit.at(site.table.node)
    copies: dict[ir.Node, ir.Node] = {}
    renamed: dict[ir.Value, ir.Value] = {}
    for node in before:
        inputs = [renamed.get(v, v) if v is not None else None for v in node.inputs]
        attributes = list(node.attributes.values())
        made = edit.add(
            node.op_type, inputs, f"{node.name}_part", attributes, like=node.outputs[0], domain=node.domain
        )
        renamed[node.outputs[0]] = made
        producer = made.producer()
        assert producer is not None
        copies[node] = producer
    site.table.node.replace_input_with(0, renamed[before[-1].outputs[0]])
    return copies


def _shrink_node(
    node: ir.Node, plan: Plan, keep: np.ndarray, axis: int, shape: tuple[int, ...], edit: IntegerEditor
) -> None:
    """Make the constants of one operator fit; ``axis`` and ``shape`` are those of its old output."""
    site = plan.site
    if node is site.table.node:
        rows = np.take(site.table.rows, keep, axis=axis)
        found = express(rows)
        assert found is not None
        along, chosen = found
        used = site.table
        rewrite(edit, used, used.entries[chosen], used.first[chosen], used.step, along)
    elif node.op_type in {"Gemm", "MatMul", "Conv"}:
        place = site.linear.out_axis
        kept = np.take(site.linear.weight, keep, axis=place)
        node.replace_input_with(1, edit.constant(f"{node.name}_weight", kept))
    elif node.op_type == "Reshape":
        sizes = [len(keep) if a == axis else s for a, s in enumerate(shape)]
        node.replace_input_with(1, edit.constant(f"{node.name}_shape", np.array([0, *sizes]), np.int64))
        node.attributes.pop("allowzero", None)
    elif node.op_type in {"Add", "Sub", "Mul"}:
        (x,) = variable_inputs(node)
        for index, value in enumerate(node.inputs):
            constant = constant_of(value)
            if value is x or constant is None:
                continue
            whole = np.broadcast_to(constant, (1, *shape))[0]
            smaller = minimal(np.take(whole, keep, axis=axis))
            node.replace_input_with(index, edit.constant(f"{node.name}_constant", smaller))
