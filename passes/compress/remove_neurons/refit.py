"""One walk over the model while units go: layers are refitted on what those before then produce."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ....analysis.environment import Environment
from ....ir import runtime
from .coupling import input_of, weight_of
from .criteria import columns, flat
from .moments import Moments, fit, moments_of
from .structure import Structure, Unit
from .weights import Weights

Arrays = dict[ir.Value, np.ndarray]


@dataclass
class FloatRun:
    """What the float model does on calibration data.

    Attributes:
        data: Arrays by input name.
        values: The inputs and outputs of the linear operators.
        seed: Seeds the choice of rows.
    """

    data: Mapping[str, np.ndarray]
    values: Arrays
    seed: int = 0
    known: dict[ir.Node, Moments] = field(default_factory=dict)

    def moments(self, structure: Structure, node: ir.Node) -> Moments:
        """Moments of the inputs and outputs of a linear operator without groups."""
        if node not in self.known:
            x = self.values[input_of(node)]
            linear = structure.linears[node]
            (self.known[node],) = moments_of(linear, x, self.values[node.outputs[0]], self.seed)
        return self.known[node]


def float_run(model: ir.Model, structure: Structure, data: Mapping[str, np.ndarray], seed: int) -> FloatRun:
    """Run the model once and keep what its linear operators read and produce."""
    wanted = [v for n in structure.linears for v in (input_of(n), n.outputs[0])]
    inner = list(dict.fromkeys(v for v in wanted if v.producer() is not None))
    found = runtime.Session(model, [str(v.name) for v in inner]).run_batched(data) if inner else {}
    values: Arrays = {v: found[str(v.name)] for v in inner}
    values |= {v: np.asarray(data[str(v.name)]) for v in wanted if v.producer() is None}
    return FloatRun(data, values, seed)


class Refit:
    """Refits every layer that removed units reach, in the order of the model.

    Args:
        structure: All units.
        weights: The weights; they change, and so does the model.
        reference: What the float model does: the pre-activations to keep to.
        ridge: Strength of the pull towards the weights as they were.
    """

    def __init__(self, structure: Structure, weights: Weights, reference: FloatRun, ridge: float) -> None:
        self.structure, self.weights, self.reference, self.ridge = structure, weights, reference, ridge

    def walk(
        self,
        removed: list[Unit],
        choose: Callable[[ir.Node, Environment], list[Unit]] | None = None,
        changed: Collection[ir.Node] = (),
        follow: bool = True,
    ) -> list[Unit]:
        """Go through the model; the units that went are marked as removed in the end.

        Args:
            removed: Units that go.
            choose: Called at every linear node before its inputs are cut, for units to remove besides.
            changed: Linear nodes that are refitted besides.
            follow: Whether what refitted nodes reach is refitted, too.

        Returns:
            All units that went.
        """
        model, removed = self.weights.model, list(removed)
        for node in self._followers(self.structure.units if choose else removed, changed, follow):
            if node.op_type == "MatMul":
                self.weights.add_bias(node, np.zeros(self.structure.linears[node].channels))
        env = Environment(model, self.reference.data)
        reached: set[ir.Value] = set()
        for node in list(model.graph):
            if node in self.structure.linears:
                if choose is not None:
                    removed += choose(node, env)
                cut = [u for u in removed if node in u.readers]
                if cut or node in changed or node.inputs[0] in reached:
                    self._fit(node, env, cut, removed)
                    reached.update(node.outputs if follow else [])
            elif reached & set(node.inputs):
                reached.update(node.outputs)
            env.step([node])
            env.done(node)
        for unit in removed:
            self.weights.remove(unit)
        self.weights.store()
        return removed

    def _followers(self, units: list[Unit], changed: Collection[ir.Node], follow: bool) -> list[ir.Node]:
        """Linear nodes that read units or have changed, and those that read what comes of them."""
        reached: set[ir.Value] = set()
        found = []
        readers = {n for u in units for n in u.readers} | set(changed)
        for node in self.weights.model.graph:
            if node in readers or reached & set(node.inputs):
                reached.update(node.outputs if follow else [])
                found += [node] if node in self.structure.linears else []
        return found

    def _fit(self, node: ir.Node, env: Environment, cut: list[Unit], removed: list[Unit]) -> None:
        linear = self.structure.linears[node]
        start = flat(self.weights[node])
        size = linear.channels // linear.groups
        free = np.ones(start.shape[1], bool)
        for unit in cut:
            free[columns(unit, linear)] = False
        gone = [c for u in removed for n, c in u.births if n is node]
        # An initializer that several nodes read keeps its weights: they could only be fitted together.
        shared = len(weight_of(node).uses()) > 1
        result, offset = start * free, np.zeros(linear.channels)
        targets = self.reference.values[node.outputs[0]]
        groups = moments_of(linear, env[input_of(node)], targets, self.reference.seed)
        for group, moments in enumerate(groups):
            rows = slice(group * size, (group + 1) * size)
            if not shared:
                result[rows] = fit(moments, start[rows], free, self.ridge)
            offset[rows] = moments.z_mean - result[rows] @ moments.x_mean
        if not shared:
            result[gone] = 0
        self.weights.set(node, result.reshape(self.weights[node].shape))
        self.weights.store()
        self.weights.add_bias(node, offset - self.weights.bias(node))
