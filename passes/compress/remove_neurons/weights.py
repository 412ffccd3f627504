"""The weights of all linear operators while units are marked as removed.

A unit is marked by zeros: in all weights that multiply it and in the rows that produce it. The model then
computes what it will compute when the unit is gone, with all its shapes as they were.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....ir.editing import GraphEditor
from ....ir.graph import constant_added_to, constant_of
from .coupling import weight_of
from .structure import Structure, Unit


class Weights:
    """Weights in one orientation, by node; nodes that share an initializer share the array.

    Args:
        model: The model; its initializers change only by ``store`` and ``add_bias``.
        structure: Its units.
    """

    def __init__(self, model: ir.Model, structure: Structure) -> None:
        self.model = model
        self.structure = structure
        self._arrays: dict[ir.Value, np.ndarray] = {}
        self._changed: set[ir.Value] = set()
        for linear in structure.linears.values():
            stored = linear.weight.astype(np.float64)
            self._arrays.setdefault(weight_of(linear.node), stored.T if linear.out_axis == 1 else stored)

    def __getitem__(self, node: ir.Node) -> np.ndarray:
        """The weight of a linear node, float64 (out, in / groups, and the kernel)."""
        return self._arrays[weight_of(node)]

    def set(self, node: ir.Node, weight: np.ndarray) -> None:
        """Replace the weight of a node and of those that share it."""
        self._arrays[weight_of(node)] = weight
        self._changed.add(weight_of(node))

    def remove(self, unit: Unit) -> None:
        """Mark a unit as removed."""
        for node, channels in unit.readers.items():
            self[node][:, channels] = 0
            self._changed.add(weight_of(node))
        for node, channel in unit.births:
            self[node][channel] = 0
            self._changed.add(weight_of(node))

    def merge(self, unit: Unit, into: Unit) -> None:
        """Let ``into`` stand for ``unit``, which has the same values, too."""
        for node in {weight_of(n): n for n in unit.readers}.values():
            self[node][:, into.readers[node]] += self[node][:, unit.readers[node]]
            self._changed.add(weight_of(node))

    def store(self) -> None:
        """Write what changed into the model."""
        for node, linear in self.structure.linears.items():
            value = weight_of(node)
            if value in self._changed:
                stored = self[node].T if linear.out_axis == 1 else self[node]
                array = np.ascontiguousarray(stored).astype(linear.weight.dtype)
                value.const_value = ir.Tensor(array, name=value.name)
        self._changed.clear()

    def bias(self, node: ir.Node) -> np.ndarray:
        """The bias (out) of a Gemm or Conv, zeros where there is none."""
        channels = self.structure.linears[node].channels
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        return (
            np.zeros(channels)
            if bias is None
            else np.broadcast_to(bias.reshape(-1), channels).astype(np.float64)
        )

    def add_bias(self, node: ir.Node, offset: np.ndarray) -> None:
        """Add ``offset`` (out) to the bias of a linear node, or behind a MatMul; the model changes."""
        dtype = self.structure.linears[node].weight.dtype
        if node.op_type != "MatMul":
            bias = (self.bias(node) + offset).astype(dtype)
            GraphEditor(self.model).set_constant(node, 2, bias, f"{node.name}_bias")
            return
        if (addition := constant_added_to(node.outputs[0])) is not None and addition[2].ndim <= 1:
            add, index, old = addition
            new = (old.astype(np.float64) + offset).astype(dtype)
            GraphEditor(self.model).set_constant(add, index, new, f"{node.name}_bias")
            return
        self._insert_add(node, offset.astype(dtype))

    def _insert_add(self, node: ir.Node, offset: np.ndarray) -> None:
        output, edit = node.outputs[0], GraphEditor(self.model)
        bias = edit.constant(f"{node.name}_bias", offset)
        new = edit.behind(output).add("Add", [output, bias], f"{node.name}_add_bias", like=output)
        edit.stand_in(output, new, "product")
        for unit in self.structure.units:
            if output in unit.places:
                unit.places[new] = unit.places[output]
