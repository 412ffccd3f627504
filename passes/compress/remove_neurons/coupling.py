"""Which channels have to go together: a walk over the model that labels every element with the channel it
belongs to.

Every output channel of a linear operator starts as a unit of its own. Behind it every element of every tensor
is labelled with the unit that it follows, as running the operators shows (``dependence``). Where two units
meet in one element (a residual addition), in one weight (shared initializers) or in one group of a
convolution, an edge of the dependency graph couples them; where something cannot shrink, an edge to
``FROZEN`` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx_ir as ir

from ....analysis.regions.elementwise import ElementwiseProbe
from ....analysis.regions.linear import Linear, linear_of
from ....ir.graph import constant_of, variable_inputs
from ....ir.shapes import dims_of
from .dependence import CONSTANT, MIXED, NotSampleWiseError, dependence

FROZEN = 0
"""Number of the unit of all that stays: graph inputs, and what is computed from several units."""


@dataclass
class Coupling:
    """The dependency graph.

    Attributes:
        units: For each tensor the unit of each element of one sample (``FROZEN``, ``CONSTANT`` or a unit's
            number).
        graph: Units as nodes; an edge holds ``why`` they are coupled.
        births: The linear node and output channel that each unit comes from.
        linears: The linear operators, in order.
    """

    units: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    graph: nx.Graph = field(default_factory=nx.Graph)
    births: dict[int, tuple[ir.Node, int]] = field(default_factory=dict)
    linears: dict[ir.Node, Linear] = field(default_factory=dict)

    def couple(self, first: int, second: int, why: str) -> None:
        """Say that two units go together; the first reason given is kept."""
        if first != second and not self.graph.has_edge(first, second):
            self.graph.add_edge(first, second, why=why)

    def couple_all(self, units: Iterable[int], why: str) -> None:
        """Couple all of ``units`` (constants are left out)."""
        known = [int(u) for u in units if u != CONSTANT]
        for unit in known[1:]:
            self.couple(known[0], unit, why)

    def freeze(self, units: np.ndarray | Iterable[int], why: str) -> None:
        """Say that ``units`` stay."""
        array = units if isinstance(units, np.ndarray) else np.array(list(units), np.int64)
        for unit in np.unique(array):
            if unit != CONSTANT:
                self.couple(FROZEN, int(unit), why)

    def groups(self) -> dict[int, int]:
        """For each unit the smallest unit that it is coupled with."""
        found = {}
        for component in nx.connected_components(self.graph):
            first = min(component)
            found.update(dict.fromkeys(component, first))
        return found

    def reason(self, unit: int) -> str:
        """Why a unit is frozen."""
        path = nx.shortest_path(self.graph, unit, FROZEN)
        return str(self.graph.edges[path[-2], path[-1]]["why"])


def couple(model: ir.Model) -> Coupling:
    """Label the elements of all tensors of a normalized float model and couple the units."""
    walk = _Walk(model)
    for value in model.graph.inputs:
        walk.define(value, FROZEN)
    for node in model.graph:
        walk.visit(node)
    walk.share_weights()
    for value in model.graph.outputs:
        if value in walk.result.units:
            walk.result.freeze(walk.result.units[value], f"reaches the graph output {value.name}")
    return walk.result


class _Walk:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.graph.opset_imports.get("", 21)
        self.probe = ElementwiseProbe(self.opset)
        self.result = Coupling()
        self.result.graph.add_node(FROZEN)
        self.next = FROZEN + 1

    def define(self, value: ir.Value, units: np.ndarray | int) -> None:
        """Set the units of a tensor; without a batch and static axes it has none and freezes them."""
        shape = _sample_shape(value)
        if shape is None:
            self.result.freeze(
                np.asarray(units), f"{value.name} has no batch on axis 0 and static axes behind it"
            )
            return
        self.result.units[value] = np.broadcast_to(np.asarray(units, np.int64), shape)
        if any(use.node.graph is not self.model.graph for use in value.uses()):
            self.result.freeze(self.result.units[value], f"{value.name} is read inside a subgraph")

    def visit(self, node: ir.Node) -> None:
        variable = variable_inputs(node)
        known = {v: self.result.units[v] for v in variable if v in self.result.units}
        linear = linear_of(node)
        if len(known) == len(variable) and linear is not None and self._fits(linear, known):
            self._linear(linear)
        elif len(known) == len(variable) and known and not _has_subgraph(node):
            self._other(node, known)
        else:
            self._stop(node, known, f"{node.name} ({node.op_type}) reads what has no batch on axis 0")

    def _stop(self, node: ir.Node, known: Mapping[ir.Value, np.ndarray], why: str) -> None:
        for units in known.values():
            self.result.freeze(units, why)
        for output in node.outputs:
            if output.name:
                self.define(output, FROZEN)

    def _fits(self, linear: Linear, known: Mapping[ir.Value, np.ndarray]) -> bool:
        """Whether it is a linear operator of one tensor, with a weight and a bias that are constant."""
        x, output = input_of(linear.node), linear.node.outputs[0]
        constants = [v for v in linear.node.inputs[1:] if v is not None]
        plain = all(
            v.is_initializer() and constant_of(v) is not None and not v.is_graph_output() for v in constants
        )
        return plain and list(known) == [x] and _sample_shape(output) is not None

    def _linear(self, linear: Linear) -> None:
        node, output, result = linear.node, linear.node.outputs[0], self.result
        shape = _sample_shape(output)
        assert shape is not None
        fresh = np.arange(self.next, self.next + linear.channels)
        self.next += linear.channels
        result.graph.add_nodes_from(int(u) for u in fresh)
        result.births.update({int(u): (node, channel) for channel, u in enumerate(fresh)})
        result.linears[node] = linear
        self.define(output, linear.along_channels(fresh, len(shape) + 1)[0])
        if linear.groups == 1:
            return
        x = input_of(node)
        size_in, size_out = len(result.units[x]) // linear.groups, linear.channels // linear.groups
        for group in range(linear.groups):
            inside = np.unique(result.units[x][group * size_in : (group + 1) * size_in])
            born = fresh[group * size_out : (group + 1) * size_out]
            result.couple_all([*inside, *born], f"a group of {node.name} (Conv) stays whole")

    def _other(self, node: ir.Node, known: Mapping[ir.Value, np.ndarray]) -> None:
        """Any other operator: element-wise, or whatever running it shows."""
        why = f"{node.name} ({node.op_type}) mixes channels"
        same_rank = len({u.ndim for u in known.values()}) == 1  # else axis 0 of one meets another of the next
        if same_rank and all(v.shape is not None for v in known) and self.probe(node, list(known)):
            self._meet(node, node.outputs[0], np.broadcast_arrays(*known.values()))
            return
        try:
            found = dependence(node, known, self.opset)
        except NotSampleWiseError:
            self._stop(node, known, f"{node.name} ({node.op_type}) does not work sample by sample")
            return
        outputs = [o for o in node.outputs if o.name]
        for output, arrays in zip(outputs, found, strict=True):
            for units, array in zip(known.values(), arrays, strict=True):
                if (array == MIXED).any():
                    self.result.freeze(units, why)
            self._meet(node, output, [np.where(a == MIXED, FROZEN, a) for a in arrays])

    def _meet(self, node: ir.Node, output: ir.Value, arrays: Sequence[np.ndarray]) -> None:
        """Define an output that follows ``arrays``, and couple the units that meet in an element."""
        units = arrays[0]
        for array in arrays[1:]:
            both = (units != CONSTANT) & (array != CONSTANT)
            for a, b in np.unique(np.stack([units[both], array[both]]), axis=1).T:
                self.result.couple(int(a), int(b), f"{node.name} ({node.op_type}) joins it with what stays")
            units = np.where(units == CONSTANT, array, units)
        self.define(output, units)

    def share_weights(self) -> None:
        """Couple channels that lie in one initializer, on both sides of it."""
        by_weight: dict[ir.Value, list[Linear]] = {}
        for linear in self.result.linears.values():
            by_weight.setdefault(weight_of(linear.node), []).append(linear)
        births = {born: unit for unit, born in self.result.births.items()}
        for weight, readers in by_weight.items():
            why = f"the weight {weight.name} is shared"
            for channel in range(readers[0].channels if len(readers) > 1 else 0):
                self.result.couple_all([b for r in readers if (b := births.get((r.node, channel)))], why)
            sides = [columns_of(self.result.units[input_of(r.node)], r) for r in readers]
            for other in sides[1:] if readers[0].groups == 1 else []:
                for mine, theirs in zip(sides[0], other, strict=False):
                    self.result.couple_all([*np.unique(mine), *np.unique(theirs)], why)
            strangers = [u.node for u in weight.uses() if u.node not in self.result.linears or u.idx != 1]
            strangers += [r.node for r in readers if _form(r) != _form(readers[0])]
            if strangers:
                why = f"{strangers[0].name} ({strangers[0].op_type}) reads its weights too"
                self.result.freeze([births[r.node, c] for r in readers for c in range(r.channels)], why)
                for side in sides:
                    self.result.freeze(side, why)


def input_of(node: ir.Node) -> ir.Value:
    """What a linear operator reads."""
    value = node.inputs[0]
    assert value is not None
    return value


def weight_of(node: ir.Node) -> ir.Value:
    """The initializer that a linear operator multiplies with."""
    value = node.inputs[1]
    assert value is not None
    return value


def columns_of(units: np.ndarray, linear: Linear) -> np.ndarray:
    """The units of an input with the contracted axis first: one row for each input channel."""
    return np.moveaxis(units, -1 if linear.node.op_type == "MatMul" else 0, 0)


def _form(linear: Linear) -> tuple[str, int]:
    return linear.node.op_type, linear.groups


def _sample_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape without the batch axis, where there is one and the rest is static."""
    dims = dims_of(value)
    if not dims or isinstance(dims[0], int):
        return None
    return tuple(int(str(d)) for d in dims[1:]) if all(isinstance(d, int) for d in dims[1:]) else None


def _has_subgraph(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(a.type in kinds for a in node.attributes.values())
