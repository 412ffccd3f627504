"""The walk through the encrypted part that decides where quantizers have to stand."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import LAYOUT, MAXIMA, variable_inputs
from ...ir.movement import Movement, Movements, may_move
from ..ranges.growth import Growth
from ..ranges.scaling import carried, carried_all
from .elementwise import ElementwiseProbe
from .linear import linear_of
from .refusals import unsupported
from .regions import JOINS, POOLS, PRODUCTS, Kind, Regions, Tensor


@dataclass(frozen=True)
class Probes:
    """What finds out about nodes by running them; kept from walk to walk, for it remembers."""

    elementwise: ElementwiseProbe
    movements: Movements
    opset: int


class RegionAnalysis:
    """One forward walk over the encrypted nodes, with the quantizers known so far.

    Args:
        regions: Where the result is written.
        needed: Values that are known to need a quantizer; the walk adds to them.
        probes: From ``RegionAnalysis.probes``.
    """

    def __init__(self, regions: Regions, needed: dict[ir.Value, None], probes: Probes) -> None:
        self.regions = regions
        self.needed = needed
        self._probe = probes.elementwise
        self._movements = probes.movements
        self._opset = probes.opset
        self.current: ir.Node | None = None
        self.scales = nx.utils.UnionFind()
        self.beside = nx.utils.UnionFind()
        self._sources: dict[ir.Value, list[ir.Value]] = {}
        # Stand-ins for the scales of accumulators, one for each channel, to see which of them get mixed.
        self._units: dict[ir.Value, np.ndarray] = {}
        self._random = np.random.default_rng(0)
        self._growth = Growth()

    @staticmethod
    def probes(opset: int) -> Probes:
        """What all walks over a model of that opset share."""
        return Probes(ElementwiseProbe(opset), Movements(opset), opset)

    def run(self, whole: bool = False) -> None:
        """Walk; a network that is encrypted ``whole`` also quantizes the functions that it ends with."""
        for node in self.regions.server:
            self.current = node
            tensor = self._visit(node)
            for output in node.outputs:
                self._define(output, tensor or Tensor(Kind.ACCUMULATOR, output))

        if not whole:
            return
        inside = set(self.regions.server)
        for value in [o for n in self.regions.server for o in n.outputs]:
            leaves = value.is_graph_output() or any(n not in inside for n in value.consumers())
            made = self.regions.tensors[value].kind is Kind.FUNCTION or value in self.needed
            if leaves and made and value.dtype is ir.DataType.FLOAT:
                self.needed.setdefault(value)
                self.regions.results.add(value)

    def _define(self, value: ir.Value, tensor: Tensor) -> None:
        self.regions.bases[value] = tensor.base
        if value in self.needed and tensor.kind is Kind.ACTIVATION and self._growth.is_wide(value):
            tensor = Tensor(Kind.ACCUMULATOR, value)
        elif value in self.needed and tensor.kind is not Kind.ACCUMULATOR:
            tensor = Tensor(Kind.ACTIVATION, value)
            self._sources.pop(value, None)
            self._growth.forget(value)
        self.regions.tensors[value] = tensor

    def _get(self, value: ir.Value) -> Tensor:
        """A tensor as its consumer finds it; one that the client computes arrives as an activation."""
        if value not in self.regions.tensors:
            self.needed.setdefault(value)
            return Tensor(Kind.ACTIVATION, value)
        return self.regions.tensors[value]

    def _require(self, value: ir.Value, node: ir.Node) -> Tensor:
        """The tensor as ``node`` needs it: as an activation, through a quantizer if it is none yet."""
        known = self.regions.tensors.get(value)
        if known is not None and known.kind is Kind.ACTIVATION:
            return known
        self.needed.setdefault(value)
        if known is not None and known.kind is Kind.ACCUMULATOR and linear_of(node) is None:
            self.regions.settling.add(node)
        return Tensor(Kind.ACTIVATION, value)

    def _narrow(self, value: ir.Value, node: ir.Node) -> None:
        """Require ``value`` for a table of several elements: a sum of many gets a quantizer of its own."""
        known = self._require(value, node)
        if known.kind is Kind.ACTIVATION and value not in self.needed and self._growth.is_wide(value):
            self.needed.setdefault(value)
            self.regions.settling.add(node)

    def _roots(self, value: ir.Value) -> list[ir.Value]:
        """The quantized tensors that an activation is made of by moving, choosing, averaging and adding."""
        if value in self.needed:
            return [value]
        return self._sources.get(value, [value])

    def _visit(self, node: ir.Node) -> Tensor | None:
        """What the node's output is; None for a fresh accumulator."""
        variable = variable_inputs(node)
        linear = linear_of(node)
        if linear is not None:
            self._require(node.inputs[0], node)  # type: ignore[arg-type]
            scales = self._random.uniform(1, 2, linear.channels)
            output = node.outputs[0]
            self._units[output] = linear.along_channels(scales, len(output.shape or [0, 0]))
            return None
        if may_move(node) and (movement := self._movements(node)) is not None:
            return self._move(node, movement)
        if node.op_type in POOLS | LAYOUT and len(variable) == 1:
            return self._pool(node, variable[0])
        tensors = [self._get(v) for v in variable]
        bases = {t.base for t in tensors}
        if len(bases) == 1 and self._probe(node, variable):
            return Tensor(Kind.FUNCTION, tensors[0].base)
        if node.domain == "" and node.op_type in MAXIMA and _one_result(node):
            return self._choose(node, variable)
        if node.op_type in JOINS and len(variable) == 2:
            return self._join(node, variable)
        if node.op_type in PRODUCTS and 1 <= len(variable) <= 2 and len(node.inputs) == 2:
            for value in variable:
                self._narrow(value, node)
                self.regions.operands.update(self._roots(value))
            self._units[node.outputs[0]] = np.ones(1)
            return None
        if len(variable) == 2 and self._probe(node, variable):
            return self._pair(node, variable)
        raise unsupported(node, variable)

    def _move(self, node: ir.Node, movement: Movement) -> Tensor:
        """Elements of one or several tensors, copied, and constants between them."""
        output, tensors = node.outputs[0], [self._get(v) for v in movement.sources]
        kinds = {t.kind for t in tensors}
        several = len(movement.sources) > 1
        functions = Kind.FUNCTION in kinds
        # Constants have no place among accumulators, whose zero is anywhere.
        raw = kinds == {Kind.ACCUMULATOR} and not movement.filled.any()
        # Several accumulators side by side wait for their function, or are quantized each by itself.
        if several and any(linear_of(n) is not None for n in output.consumers()):
            raw = False
        if raw and not functions:
            units = {v: self._units.get(v, np.ones(1)) for v in movement.sources}
            found = carried_all([node], units)
            self._units[output] = found if found is not None else np.ones(1)
            return Tensor(Kind.ACCUMULATOR, output)
        for value in movement.sources:
            self._require(value, node)
        roots = [r for v in movement.sources for r in self._roots(v)]
        if several:
            self.beside.union(*roots)
        self._sources[output] = roots
        self._growth.moved(output, movement.sources)
        return Tensor(Kind.ACTIVATION, output)

    def _pool(self, node: ir.Node, value: ir.Value) -> Tensor:
        tensor, output = self._get(value), node.outputs[0]
        if tensor.kind is Kind.FUNCTION or not self._carries(node, value, tensor):
            tensor = self._require(value, node)
        self._sources[output] = self._roots(value)
        self._growth.pooled(node, value)
        return Tensor(tensor.kind, output)

    def _carries(self, node: ir.Node, value: ir.Value, tensor: Tensor) -> bool:
        """Whether a layout operator or pooling mixes only elements of the same scale."""
        if tensor.kind is not Kind.ACCUMULATOR or value not in self._units:
            return True
        unit = carried([node], value, self._units[value])
        if unit is None:
            return False
        self._units[node.outputs[0]] = unit
        return True

    def _choose(self, node: ir.Node, variable: list[ir.Value]) -> Tensor:
        """A maximum or minimum: of activations of one scale, and one of them itself."""
        for value in variable:
            self._narrow(value, node)
        roots = [r for v in variable for r in self._roots(v)]
        self._growth.moved(node.outputs[0], variable)
        self.regions.operands.update(roots)
        if len(variable) > 1:
            self.scales.union(*roots)
        self._sources[node.outputs[0]] = roots
        return Tensor(Kind.ACTIVATION, node.outputs[0])

    def _join(self, node: ir.Node, operands: list[ir.Value]) -> Tensor:
        tensors = [
            self._require(v, node) if self._get(v).kind is Kind.FUNCTION else self._get(v) for v in operands
        ]
        output = node.outputs[0]
        if any(t.kind is Kind.ACCUMULATOR for t in tensors):
            self.regions.joins.append(node)
            units = [self._units[v] for v in operands if v in self._units]
            self._units[output] = sum(units[1:], units[0]) if units else np.ones(1)
            return Tensor(Kind.ACCUMULATOR, output)
        roots = [r for v in operands for r in self._roots(v)]
        self.scales.union(*roots)
        self._sources[output] = roots
        self._growth.added(output, operands)
        return Tensor(Kind.ACTIVATION, output)

    def _pair(self, node: ir.Node, variable: list[ir.Value]) -> Tensor:
        """A function of two activations, element by element: a base of its own."""
        roots: list[ir.Value] = []
        for value in variable:
            tensor = self._get(value)
            known = self.regions.tensors.get(tensor.base)
            if tensor.kind is Kind.FUNCTION and known is not None and known.kind is Kind.ACTIVATION:
                roots += self._roots(tensor.base)  # a function of few integers needs no table of its own
                continue
            number = _number(value)
            self._narrow(number, node)
            roots += self._roots(number)
        if self._knows_differences_only(node, variable):
            self.scales.union(*roots)
            self.regions.operands.update(roots)
        else:
            self.regions.paired.update(roots)
        return Tensor(Kind.FUNCTION, node.outputs[0])

    def _knows_differences_only(self, node: ir.Node, variable: list[ir.Value]) -> bool:
        """Whether adding the same to both operands changes nothing, as in a comparison."""
        random = np.random.default_rng(0)
        values = {}
        for value in variable:
            if value.dtype is not ir.DataType.FLOAT:
                return False
            shape = [d if isinstance(d, int) else 2 for d in value.shape or []]
            values[value] = random.integers(0, 4, shape).astype(np.float32)
        results = [
            runtime.run_nodes([node], {v: a + shift for v, a in values.items()}, node.outputs, self._opset)[0]
            for shift in (0, 1, 5)
        ]
        return all(np.array_equal(r, results[0]) for r in results)


def _number(value: ir.Value) -> ir.Value:
    """The float tensor that a condition or a whole number was made of by Casts, and by Round before them."""
    given, producer = value, value.producer()
    while value.dtype is not ir.DataType.FLOAT and producer is not None and producer.op_type == "Cast":
        assert producer.inputs[0] is not None
        value, producer = producer.inputs[0], producer.inputs[0].producer()
    if value is not given and producer is not None and producer.op_type == "Round":
        assert producer.inputs[0] is not None
        return producer.inputs[0]
    return value


def _one_result(node: ir.Node) -> bool:
    """Whether nobody asks where the largest element was found."""
    return all(not o.uses() and not o.is_graph_output() for o in node.outputs[1:])
