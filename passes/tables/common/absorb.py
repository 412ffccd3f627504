"""``a * x + b`` in front of a linear operator costs nothing: it goes into the weights and behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear, linear_of
from ....ir import runtime
from ....ir.graph import constant_added_to, variable_inputs
from ....ir.integer_editing import IntegerEditor
from .moves import Moves, sample_shape


def minimal(array: np.ndarray) -> np.ndarray:
    """Constants for one sample with a batch axis of 1, and of 1 wherever they do not differ along an axis."""
    array = array[None]
    for axis in range(1, array.ndim):
        if array.shape[axis] > 1 and (array == np.take(array, [0], axis=axis)).all():
            array = np.take(array, [0], axis=axis)
    return array


def add_behind(node: ir.Node, addend: np.ndarray, edit: IntegerEditor) -> None:
    """Add a constant (one sample) to a node's output for all who read it; joins an addition that is there."""
    if not np.any(addend):
        return
    output = node.outputs[0]
    if (addition := constant_added_to(output)) is not None:
        add, index, old = addition
        if sample_shape(add.outputs[0]) == addend.shape and old.ndim <= addend.ndim + 1:
            whole = np.broadcast_to(old, (1, *addend.shape))[0] + addend
            add.replace_input_with(index, edit.constant(f"{add.name}_offset", minimal(whole)))
            return
    uses = list(output.uses())
    following = [u.node for u in uses]
    edit.at(min(following, key=list(edit.model.graph).index))
    name = f"{node.name}_offset"
    constant = edit.constant(f"{name}_constant", minimal(addend))
    added = edit.add("Add", [output, constant], name, like=output)
    for use in uses:
        use.node.replace_input_with(use.idx, added)


def apply_linear(linear: Linear, x: ir.Value, sample: np.ndarray, opset: int) -> np.ndarray:
    """What a linear operator makes of one constant sample, padding and strides included."""
    (found,) = runtime.run_nodes(
        [linear.node], {x: sample[None].astype(np.float32)}, linear.node.outputs, opset
    )
    return np.asarray(found[0], np.float64)


def input_axis(linear: Linear) -> int:
    """Axis of the input channels in one sample of the operator's input."""
    return 0 if linear.node.op_type == "Conv" else -1


def per_input(sample: np.ndarray, linear: Linear) -> np.ndarray | None:
    """A sample of the input as one number for each input channel; None where it differs within one."""
    channels = np.moveaxis(sample, input_axis(linear), 0)
    channels = channels.reshape(len(channels), -1)
    return channels[:, 0] if channels.size and (channels == channels[:, :1]).all() else None


def scale_inputs(linear: Linear, factor: np.ndarray) -> np.ndarray:
    """The stored weight with every input channel multiplied."""
    weight = linear.weight.astype(np.float64)
    if linear.node.op_type == "MatMul":
        return np.asarray(weight * factor[:, None])
    if linear.node.op_type == "Gemm":
        return np.asarray(weight * factor[None, :])
    inner = weight.shape[1]
    groups = np.array([linear.group_of(c) for c in range(linear.channels)])
    read = groups[:, None] * inner + np.arange(inner)
    return np.asarray(weight * factor[read].reshape(*read.shape, *[1] * (weight.ndim - 2)))


class Absorption:
    """Lets what reads a value take in ``slope * value + offset`` in its place.

    Args:
        edit: Inserts what cannot be taken in.
        moves: Which operators move elements.
    """

    def __init__(self, edit: IntegerEditor, moves: Moves) -> None:
        self.edit, self.moves = edit, moves

    def absorb(self, value: ir.Value, slope: np.ndarray, offset: np.ndarray) -> None:
        """Change the readers of ``value`` in place.

        Args:
            value: What they read; every reader is to compute as if it held ``slope * value + offset``.
            slope, offset: Shaped as one sample.
        """
        moved: set[ir.Node] = set()
        for use in list(value.uses()):
            node, output = use.node, use.node.outputs[0]
            if node in moved:  # it reads the value twice
                continue
            places = self.moves(output) if not output.is_graph_output() else None
            if places is not None and variable_inputs(node) == [value]:
                moved.add(node)
                self.absorb(output, slope.ravel()[places], offset.ravel()[places])
                continue
            linear = linear_of(node)
            factor = per_input(slope, linear) if linear is not None and use.idx == 0 else None
            if linear is None or factor is None:
                node.replace_input_with(use.idx, self._made(value, slope, offset, node))
                continue
            added = apply_linear(linear, value, offset, self.moves.opset)
            if np.any(factor != 1):
                weight = self.edit.constant(f"{node.name}_weight", scale_inputs(linear, factor))
                node.replace_input_with(1, weight)
            add_behind(node, added, self.edit)

    def _made(self, value: ir.Value, slope: np.ndarray, offset: np.ndarray, reader: ir.Node) -> ir.Value:
        self.edit.at(reader)
        scaled = self.edit.scaled(value, minimal(slope), f"{reader.name}_scaled")
        return self.edit.shifted(scaled, minimal(offset), f"{reader.name}_shifted")
