"""What one integer step of each tensor is worth, on the way through the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import carried_all
from ...analysis.regions.linear import Linear
from ...analysis.regions.regions import JOINS
from ...ir import runtime
from ...ir.graph import LAYOUT, MAXIMA, constant_of, variable_inputs
from ...ir.movement import CANDIDATES


class Units:
    """What one integer step of each tensor is worth, as far as it is known on the way through the graph."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, np.ndarray] = {}
        self._integers: dict[ir.Value, tuple[int, int]] = {}

    def bound(self, value: ir.Value, low: int, high: int) -> None:
        """Record the smallest and largest integer that a tensor can hold."""
        self._integers[value] = low, high

    def integers(self, value: ir.Value | None) -> tuple[int, int] | None:
        """The smallest and largest integer of a tensor, or None where they are not known."""
        return self._integers.get(value) if value is not None else None

    def _carry(self, node: ir.Node) -> None:
        """Ranges of integers through layout, average pooling (a sum) and additions."""
        ranges = [self._integers[v] for v in node.inputs if v in self._integers]
        data = node.inputs[0]
        if not ranges:
            return
        low, high = ranges[0]
        if node.op_type in CANDIDATES | MAXIMA:
            if len(ranges) == len(variable_inputs(node)):
                self.bound(node.outputs[0], min(0, *(r[0] for r in ranges)), max(0, *(r[1] for r in ranges)))
        elif node.op_type == "AveragePool":
            window = int(np.prod(node.attributes.get_ints("kernel_shape", [1])))
            self.bound(node.outputs[0], min(0, low) * window, max(0, high) * window)
        elif node.op_type == "GlobalAveragePool" and data is not None and data.shape is not None:
            window = int(np.prod([d for d in list(data.shape)[2:] if isinstance(d, int)]))
            self.bound(node.outputs[0], low * window, high * window)
        elif (
            node.op_type in JOINS and len(ranges) == 2 and len({float(self.of(v)) for v in node.inputs}) == 1
        ):
            other = ranges[1] if node.op_type == "Add" else (-ranges[1][1], -ranges[1][0])
            self.bound(node.outputs[0], low + other[0], high + other[1])

    def set(self, value: ir.Value, unit: float | np.ndarray, axis: int = 1) -> None:
        """Record the unit of a tensor: one number, or one for each entry of an axis."""
        array = np.asarray(unit, np.float64)
        if array.size > 1:
            rank = len(value.shape or [])
            array = array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
        self._known[value] = array if array.size > 1 else array.reshape(())

    def of(self, value: ir.Value | None) -> float:
        """The unit of a tensor that has one; 1 where it is not known."""
        known = self._known.get(value) if value is not None else None
        return float(known) if known is not None and known.ndim == 0 else 1.0

    def visit(self, node: ir.Node, linear: Linear | None) -> None:
        """Carry units through layout, pooling and additions."""
        if linear is not None or not node.inputs:
            return
        self._carry(node)
        known = [self._known[v] for v in node.inputs if v in self._known]
        if not known:
            return
        output = node.outputs[0]
        if node.op_type in JOINS and len(known) == 2:
            self._known[output] = np.minimum(*np.broadcast_arrays(*map(np.abs, known)))
        elif node.op_type in JOINS and any(constant_of(v) is not None for v in node.inputs):
            self._known[output] = known[0]
        elif node.op_type in LAYOUT:
            self._known[output] = self._through(node, known[0])
        elif node.op_type in CANDIDATES | MAXIMA:
            self._beside(node)
        elif known[0].ndim and known[0].size != known[0].shape[1]:
            return
        elif node.op_type == "AveragePool":
            window = float(np.prod(node.attributes.get_ints("kernel_shape", [1])))
            self._known[output] = known[0] / window
        elif node.op_type == "GlobalAveragePool" and (data := node.inputs[0]) is not None:
            window = float(np.prod([d for d in list(data.shape or [])[2:] if isinstance(d, int)]))
            self._known[output] = known[0] / window

    def _beside(self, node: ir.Node) -> None:
        """Units of elements that are moved or chosen, also from several tensors."""
        read = variable_inputs(node)
        if len(read) == len([v for v in read if v in self._known]):
            units = {v: self._known[v] for v in read}
            if len({float(u) for u in units.values() if u.ndim == 0}) == 1 and all(
                u.ndim == 0 for u in units.values()
            ):
                self._known[node.outputs[0]] = next(iter(units.values()))
            elif (found := carried_all([node], {v: np.abs(u) for v, u in units.items()})) is not None:
                self._known[node.outputs[0]] = found.astype(np.float64)

    @staticmethod
    def _through(node: ir.Node, unit: np.ndarray) -> np.ndarray:
        """What a layout operator makes of a unit for each channel."""
        data, graph = node.inputs[0], node.graph
        if unit.ndim == 0 or data is None or not isinstance(graph, ir.Graph):
            return unit
        shape = [d if isinstance(d, int) else 1 for d in data.shape or []]
        spread = np.broadcast_to(unit, [1, *shape[1:]]).astype(np.float32)
        opset = graph.opset_imports.get("", 21)
        return runtime.run_nodes([node], {data: spread}, node.outputs, opset)[0].astype(np.float64)

    def reference(self, linear: Linear) -> np.ndarray | None:
        """The unit of what this layer's output is added to, where that is known: () or (out)."""
        value = linear.node.outputs[0]
        while True:
            readers = [r for r in value.consumers() if r.op_type in JOINS]
            for reader in readers:
                for other in reader.inputs:
                    if other is not value and other in self._known:
                        return self._along(linear, self._known[other])
            if len(readers) != 1 or all(constant_of(v) is None for v in readers[0].inputs):
                return None
            value = readers[0].outputs[0]  # a bias on the way

    @staticmethod
    def _along(linear: Linear, unit: np.ndarray) -> np.ndarray | None:
        """A unit as one number for each output channel; None where it also changes from place to place."""
        if unit.ndim == 0:
            return unit
        moved = np.moveaxis(unit, linear.channel_axis % unit.ndim, 0)
        columns = moved.reshape(len(moved), -1)
        if not np.allclose(columns, columns[:, :1], rtol=1e-6, atol=0):
            return None
        return np.asarray(np.broadcast_to(columns[:, 0], linear.channels))
