"""Units that can go without any loss: no weight reads them, they are constant, or they exist twice."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear
from ....ir import runtime
from ....ir.graph import variable_inputs
from ....ir.sampling import random_inputs
from .adapt import Keep, adapt, size_at
from .coupling import input_of
from .structure import Room, Structure, Unit
from .weights import Weights

_CHECKED_SAMPLES = 3
"""Random samples on which a removal that claims to be exact is compared."""
_FLOAT_TOLERANCE = 1e-5
"""Difference of two outputs, relative to the largest, that counts as none."""


def remove_exactly(model: ir.Model, structure: Structure, weights: Weights) -> list[Unit]:
    """Mark the units that can go without loss; biases and weights of their readers take over what they did.

    A unit is *dead* where all weights that multiply it are zero; it is *constant* where all weights that
    produce it are zero and then goes into the biases of its readers (unless the padding of a convolution
    shows where it ends); it is a *duplicate* where another one is produced by the same weights and goes the
    same way.

    Returns:
        The units, in the order in which they went.
    """
    search = _Search(model, structure, weights)
    while search.sweep():
        pass
    weights.store()
    return search.removed


class _Search:
    def __init__(self, model: ir.Model, structure: Structure, weights: Weights) -> None:
        self.model, self.structure, self.weights = model, structure, weights
        self.room = Room(structure.units)
        self.pending = list(structure.units)
        self.removed: list[Unit] = []
        self._values: dict[ir.Value, np.ndarray] = {}

    def sweep(self) -> bool:
        """Look at all units once; returns whether any went."""
        before = len(self.removed)
        for unit in list(self.pending):
            if self.room.allows(unit) and (self._is_dead(unit) or self._fold(unit)):
                self._remove(unit)
        seen: dict[object, Unit] = {}
        for unit in list(self.pending):
            other = seen.setdefault(self._signature(unit), unit)
            if other is not unit and self.room.allows(unit) and self._same_values(unit, other):
                self.weights.merge(unit, other)
                self._remove(unit)
        return len(self.removed) > before

    def _remove(self, unit: Unit) -> None:
        self.weights.remove(unit)
        self.room.remove(unit)
        self.pending.remove(unit)
        self.removed.append(unit)

    def _is_dead(self, unit: Unit) -> bool:
        return all(not self.weights[node][:, channels].any() for node, channels in unit.readers.items())

    def _fold(self, unit: Unit) -> bool:
        """Move a constant unit into the biases of its readers, where that is possible everywhere."""
        known = self._constant_tensors(unit)
        if not all(node.inputs[0] in known for node in unit.readers):
            return False
        offsets = {}
        for node in unit.readers:
            offset = self._contribution(unit, self.structure.linears[node])
            if offset is None:
                return False
            offsets[node] = offset
        for node, offset in offsets.items():
            if offset.any():
                self.weights.add_bias(node, offset)
        return True

    def _constant_tensors(self, unit: Unit) -> set[ir.Value]:
        """The tensors in which the unit has the same value whatever the input."""
        births: dict[ir.Node, list[int]] = {}
        for born, channel in unit.births:
            births.setdefault(born, []).append(channel)
        known: set[ir.Value] = set()
        for value in unit.places:
            node = value.producer()
            if node is None:
                continue
            if node in self.structure.linears:
                zero = not self.weights[node][births[node]].any()
                through = self.structure.linears[node].groups > 1 and node.inputs[0] in known
                if zero or through:
                    known.add(value)
            elif all(v in known for v in variable_inputs(node) if v in unit.places):
                known.add(value)
        return known

    def _value(self, value: ir.Value) -> np.ndarray:
        """A tensor on some random inputs, as it was before anything went."""
        if not self._values:
            wanted = {n.inputs[0] for n in self.structure.linears}
            names = {str(v.name): v for v in wanted if v is not None and v.producer() is not None}
            proto = runtime.to_proto(self.model)
            data = random_inputs(list(proto.graph.input), _CHECKED_SAMPLES)
            found = runtime.Session(proto, list(names)).run(data)
            self._values = {names[k]: a for k, a in found.items()}
        return self._values[value]

    def _contribution(self, unit: Unit, linear: Linear) -> np.ndarray | None:
        """What a constant unit adds to each output channel; None where positions differ."""
        node = linear.node
        x, weight = input_of(node), self.weights[node].astype(linear.weight.dtype)
        axis, indices = unit.places[x]
        full = self._value(x)[:1]
        alone = np.zeros_like(full)
        np.moveaxis(alone, axis, 0)[indices] = np.moveaxis(full, axis, 0)[indices]
        stand_in = ir.Value(name="x")
        stored = ir.Value(name="w", const_value=ir.Tensor(weight.T if linear.out_axis == 1 else weight))
        copy = ir.Node("", node.op_type, [stand_in, stored], list(node.attributes.values()))
        opset = self.model.graph.opset_imports.get("", 21)
        (result,) = runtime.run_nodes([copy], {stand_in: alone}, copy.outputs, opset)
        channels = np.moveaxis(result.astype(np.float64), linear.channel_axis, 0).reshape(linear.channels, -1)
        offset = channels[:, 0]
        scale = np.abs(channels).max(initial=0)
        if not np.isfinite(scale) or np.abs(channels - offset[:, None]).max(initial=0) > 1e-6 * scale:
            return None
        return offset

    def _signature(self, unit: Unit) -> object:
        """What makes two units the same: equal weights, the same way, equal constants on it."""
        births = tuple(
            (id(node), self.weights[node][channel].tobytes(), self._bias(node)[channel].tobytes())
            for node, channel in unit.births
        )
        way: list[object] = []
        for value, (axis, indices) in unit.places.items():
            way.append((id(value), axis, len(indices)))
            node = value.producer()
            if node is not None and node not in self.structure.linears:
                change = adapt(node, {value: Keep(axis, indices, size_at(value, axis))})
                way.append(tuple(a.tobytes() for a in change.constants.values()) if change else ())
        return births, tuple(way), tuple(id(n) for n in unit.readers)

    def _bias(self, node: ir.Node) -> np.ndarray:
        if node.op_type == "MatMul":
            return np.zeros(self.structure.linears[node].channels)
        return self.weights.bias(node)

    def _same_values(self, unit: Unit, other: Unit) -> bool:
        """Whether the elements of two units come in the same order everywhere that they are multiplied."""
        for node, channels in unit.readers.items():
            x = input_of(node)
            axis = unit.places[x][0]
            a, b = (np.take(self._value(x), c, axis) for c in (channels, other.readers[node]))
            if not np.allclose(
                a, b, rtol=_FLOAT_TOLERANCE, atol=_FLOAT_TOLERANCE * float(np.abs(a).max(initial=1e-30))
            ):
                return False
        return True
