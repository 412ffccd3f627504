"""Two linear operators with nothing but constants and layout between them, as one linear operator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear, linear_of
from ....ir import runtime
from ....ir.integer_editing import IntegerEditor
from ....ir.level import Level, level_of
from . import chain
from .absorb import add_behind, apply_linear, minimal, per_input
from .moves import Moves, sample_shape

MAX_MATRIX_ENTRIES = 2**24
"""Entries of the matrix of a first operator that has to be run on every basis vector."""
MAX_WEIGHT_SUM = 2**16
"""Largest sum of absolute integer weights of a neuron: times eight bits of input it is exact in float32."""


@dataclass(frozen=True)
class Composition:
    """What stands in place of the second operator.

    Attributes:
        x: What it reads.
        flat: Whether ``x`` has to be made a matrix first.
        weight: As the second operator stores it.
        addend: What is added behind it, for one sample: both biases and all constants between.
        attributes: Attributes of the operator.
        weights: Weights that the two operators have.
    """

    x: ir.Value
    flat: bool
    weight: np.ndarray
    addend: np.ndarray
    attributes: dict[str, Any]
    weights: int

    def fits_bias(self, second: ir.Node) -> bool:
        """Whether the addend can be the bias: one number a channel (a MatMul has an Add behind it)."""
        if second.op_type == "MatMul":
            return not (second.outputs[0].is_graph_output() and np.any(self.addend))
        return minimal(self.addend).size in {1, _channels(second)}

    def exact(self, second: ir.Node) -> bool:
        """Whether integer weights stay small enough for float32."""
        axes = tuple(a for a in range(self.weight.ndim) if a != (1 if second.op_type == "MatMul" else 0))
        return bool(np.abs(self.weight).sum(axis=axes).max(initial=0) < MAX_WEIGHT_SUM)


def find(second: ir.Node, moves: Moves) -> Composition | None:
    """The composition of a linear operator with the one it reads; None where they do not make a linear
    operator.

    Convolutions compose where one of them has a kernel of a single point (and the padding of the other is
    kept), and anything composes with a dense layer behind it.
    """
    behind = linear_of(second)
    x2 = second.inputs[0]
    if behind is None or x2 is None:
        return None
    between = chain.back(x2, lambda node: linear_of(node) is not None, moves)
    producer = between.start.producer() if between is not None else None
    before = linear_of(producer) if producer is not None else None
    if between is None or before is None or (x1 := before.node.inputs[0]) is None:
        return None
    shapes = [sample_shape(v) for v in (x1, between.start, x2, second.outputs[0])]
    if any(s is None for s in shapes):
        return None
    given = shapes[0] or ()
    bias = apply_linear(before, x1, np.zeros(given), moves.opset)
    constant = between.slope * bias.ravel()[between.source] + between.offset
    addend = apply_linear(behind, x2, constant, moves.opset)
    found = _weight(before, between, behind, bias, given, moves)
    if found is None:
        return None
    weight, flat, attributes = found
    weights = before.weight.size + behind.weight.size
    return Composition(x1, flat, weight, addend, attributes, weights)


def apply(second: ir.Node, composition: Composition, edit: IntegerEditor) -> None:
    """Put a composition in the place of the second operator; the first goes when nobody else reads it."""
    edit.at(second)
    x = composition.x
    if composition.flat:
        x = edit.add("Flatten", [x], f"{second.name}_flat", {"axis": 1}, like=x)
        size = math.prod(sample_shape(composition.x) or ())
        x.shape = ir.Shape([(composition.x.shape or [None])[0], size])
    second.replace_input_with(0, x)
    second.replace_input_with(1, edit.constant(f"{second.name}_composed", composition.weight))
    for name in set(composition.attributes) & {"strides", "pads", "dilations", "kernel_shape"}:
        second.attributes[name] = ir.AttrInt64s(name, list(composition.attributes[name]))
    if level_of(edit.model) is Level.INTEGER or second.op_type == "MatMul":
        add_behind(second, composition.addend, edit)
        return
    bias = minimal(composition.addend).reshape(-1)
    second.resize_inputs(3)
    second.replace_input_with(
        2, edit.constant(f"{second.name}_bias", np.broadcast_to(bias, _channels(second)))
    )


def fits(source: ir.Value, output: ir.Value, reader: ir.Node, moves: Moves) -> bool:
    """Whether ``reader`` composes with what makes ``source``, were ``output`` the same value."""
    linear = linear_of(reader)
    first = chain.back(source, lambda node: linear_of(node) is not None, moves)
    stop = output.producer()
    x = reader.inputs[0]
    second = chain.back(x, lambda node: node is stop, moves) if x is not None else None
    producer = first.start.producer() if first is not None else None
    before = linear_of(producer) if producer is not None else None
    if linear is None or before is None or first is None or second is None:
        return False
    return _dense(linear, second) or _pointwise(
        before,
        linear,
        all(np.array_equal(c.source.ravel(), np.arange(c.source.size)) for c in (first, second)),
    )


def compose_behind(second: ir.Node, edit: IntegerEditor, moves: Moves) -> None:
    """Compose where it is possible; see ``fits``."""
    found = find(second, moves)
    if found is not None and found.exact(second):
        apply(second, found, edit)


def _channels(node: ir.Node) -> int:
    linear = linear_of(node)
    assert linear is not None
    return linear.channels


def _dense(linear: Linear, between: chain.Chain) -> bool:
    return linear.node.op_type != "Conv" and between.source.ndim == 1


def _pointwise(before: Linear, behind: Linear, straight: bool) -> bool:
    """Whether two operators of the same kind compose channel by channel."""
    kinds = before.node.op_type, behind.node.op_type
    if not straight or kinds not in {("Conv", "Conv"), ("MatMul", "MatMul")}:
        return False
    if kinds[0] == "MatMul":
        return True
    if before.groups != 1 or behind.groups != 1:
        return False
    return _single_point(behind, strides=True) or _single_point(before, strides=False)


def _single_point(linear: Linear, strides: bool) -> bool:
    if any(size != 1 for size in linear.weight.shape[2:]) or any(linear.node.attributes.get_ints("pads", [])):
        return False
    return strides or all(s == 1 for s in linear.node.attributes.get_ints("strides", []))


def _weight(
    before: Linear,
    between: chain.Chain,
    behind: Linear,
    bias: np.ndarray,
    given: tuple[int, ...],
    moves: Moves,
) -> tuple[np.ndarray, bool, dict[str, Any]] | None:
    if _dense(behind, between):
        matrix = _basis(before, bias, given, moves)
        if matrix is None:
            return None
        arriving = between.slope[:, None] * matrix[between.source]
        return _stored(behind, behind.matrix() @ arriving), len(given) > 1, {}
    straight = np.array_equal(between.source.ravel(), np.arange(between.source.size))
    slope = per_input(between.slope, behind)
    if slope is None or not _pointwise(before, behind, straight):
        return None
    if before.node.op_type == "MatMul":
        return before.weight.astype(np.float64) * slope @ behind.weight.astype(np.float64), False, {}
    first = before.weight.astype(np.float64) * slope.reshape(-1, *[1] * (before.weight.ndim - 1))
    second = behind.weight.astype(np.float64)
    if _single_point(behind, strides=True):
        weight = np.tensordot(second.reshape(second.shape[:2]), first, axes=(1, 0))
        return weight, False, _merged(before, behind)
    weight = np.moveaxis(np.tensordot(second, first.reshape(first.shape[:2]), axes=(1, 0)), -1, 1)
    return weight, False, {}


def _merged(before: Linear, behind: Linear) -> dict[str, Any]:
    """Attributes of the first convolution, with the strides of both."""
    dims = before.weight.ndim - 2
    get = before.node.attributes.get_ints
    other = behind.node.attributes.get_ints("strides", [1] * dims)
    return {
        "strides": [a * b for a, b in zip(get("strides", [1] * dims), other, strict=True)],
        "pads": list(get("pads", [0] * (2 * dims))),
        "dilations": list(get("dilations", [1] * dims)),
        "kernel_shape": list(before.weight.shape[2:]),
    }


def _stored(linear: Linear, matrix: np.ndarray) -> np.ndarray:
    return matrix.T.copy() if linear.node.op_type == "MatMul" else matrix


def _basis(before: Linear, bias: np.ndarray, given: tuple[int, ...], moves: Moves) -> np.ndarray | None:
    """(outputs, inputs) of a first operator on whole samples."""
    if len(given) == 1:
        return before.matrix()
    inputs = math.prod(given)
    if inputs * bias.size > MAX_MATRIX_ENTRIES:
        return None
    # Values of its own: a node that reads the graph's would count among their users.
    x, weight = ir.Value(name="x"), ir.Value(name="w")
    node = ir.Node("", before.node.op_type, [x, weight], list(before.node.attributes.values()), num_outputs=1)
    arrays = {x: np.eye(inputs, dtype=np.float32).reshape(inputs, *given), weight: before.weight}
    (found,) = runtime.run_nodes([node], arrays, node.outputs, moves.opset)
    return found.reshape(inputs, -1).T.astype(np.float64)
