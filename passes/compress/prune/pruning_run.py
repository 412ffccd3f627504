"""The walk of ``prune``: layer after layer, on the inputs that the pruned layers before produce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....analysis.environment import Environment
from ....analysis.regions.linear import Linear, linear_of
from ....analysis.regions.region_analysis import find_regions
from ....ir import runtime
from ....ir.editing import GraphEditor
from ....ir.errors import LimitError
from ....ir.graph import constant_of
from ...framework.base import Context
from ...quantize.graph import set_bias
from . import obs
from .bounds import Bound, Limit, input_levels
from .select import Scope, keep_counts, keep_largest


@dataclass(frozen=True)
class PruneSettings:
    """What ``prune`` was asked for; see its options.

    Attributes:
        shares: Sparsity of each layer, by node name.
        scope: What a sparsity is a share of.
        method: How the importance of a weight is found.
        refit: Whether biases are moved to where the float model's outputs are.
        accumulator_bits: What every accumulator has to fit, if anything.
        bound, multiplier: How that limits a neuron.
        weights, activations, inputs: Bits after quantization, for the bound.
    """

    shares: Mapping[str, float]
    scope: Scope
    method: Literal["l1", "obs"]
    refit: bool
    accumulator_bits: int | None
    bound: Bound
    multiplier: float
    weights: int
    activations: int
    inputs: int


class PruningRun:
    """One run of the pass.

    Args:
        settings: What was asked for.
        model: Float level; edited in place.
        data: Calibration inputs, where there are any.
        context: For progress, notes and the seed.
    """

    def __init__(
        self,
        settings: PruneSettings,
        model: ir.Model,
        data: Mapping[str, np.ndarray] | None,
        context: Context,
    ) -> None:
        self.settings, self.model, self.data, self.context = settings, model, data, context
        self.edit = GraphEditor(model)
        self.layers = [linear for n in model.graph if (linear := linear_of(n)) is not None]
        self.limits = self._limits()
        self.outputs: dict[ir.Value, np.ndarray] = {}

    def run(self) -> bool:
        """Prune; returns whether a weight or bias changed."""
        env = None
        if self.data is not None and (self.settings.refit or self.settings.method == "obs"):
            env = Environment(self.model, self.data)
            self.outputs = self._float_run([linear.node.outputs[0] for linear in self.layers])
        counts = self._counts()
        by_node = {linear.node: linear for linear in self.layers}
        modified = False
        for node in list(self.model.graph):
            linear = by_node.get(node)
            added: list[ir.Node] = []
            if linear is not None:
                done = self._prune(linear, counts[str(node.name)], env)
                modified |= done
                added = self._refit(linear, env, modified) if env is not None else []
            if env is not None:
                env.step([node, *added])
                env.done(node)
        if modified:
            RemoveUnusedNodesPass()(self.model)
        return modified

    def _limits(self) -> dict[str, Limit]:
        """The limit of each layer, where there is one."""
        given, limits = self.settings, {}
        if given.accumulator_bits is None:
            return {}
        regions = find_regions(self.model)
        for linear in self.layers:
            node, data = linear.node, linear.node.inputs[0]
            assert data is not None
            levels, joined = input_levels(data, regions, given.inputs, given.activations)
            limit = Limit(given.accumulator_bits, given.weights, levels, given.bound, given.multiplier)
            if not limit.possible:
                raise LimitError(
                    f"no weight fits an accumulator of {given.accumulator_bits} bits",
                    node=str(node.name),
                    op=node.op_type,
                    found=f"{given.weights}-bit weights on inputs of {limit.input_levels + 1} values",
                    allowed=f"a product within {2**given.accumulator_bits} values",
                    do="raise accumulator-bits or multiplier, or lower weights, inputs and activations",
                )
            if joined:
                self.context.notes.append(
                    f"prune: {node.name} reads a sum of tensors whose multipliers are not known yet;"
                    " its bound assumes equal scales (analyze-ranges shows the real one)"
                )
            limits[str(node.name)] = limit
        return limits

    def _float_run(self, values: list[ir.Value]) -> dict[ir.Value, np.ndarray]:
        assert self.data is not None
        found = runtime.Session(self.model, [str(v.name) for v in values]).run_batched(
            self.data, progress=lambda d, t: self.context.progress("run the float model", d, t)
        )
        return {v: found[str(v.name)] for v in values}

    def _counts(self) -> dict[str, np.ndarray]:
        """Most weights that each neuron of each layer keeps."""
        matrices = {str(linear.node.name): linear.matrix() for linear in self.layers}
        shares = {name: self.settings.shares[name] for name in matrices}
        if self.settings.method == "l1" or not any(shares.values()):
            return keep_counts({n: np.abs(m) for n, m in matrices.items()}, shares, self.settings.scope)
        assert self.data is not None
        read = [v for linear in self.layers if (v := linear.node.inputs[0]) is not None]
        inputs = self._float_run([v for v in dict.fromkeys(read) if not v.is_graph_input()])
        inputs |= {v: np.asarray(self.data[str(v.name)]) for v in read if v.is_graph_input()}
        scores = {}
        for linear, value in zip(self.layers, read, strict=True):
            moments, _ = self._moments(linear, inputs[value])
            scores[str(linear.node.name)] = obs.importance(linear.matrix(), moments)
        return keep_counts(scores, shares, self.settings.scope)

    def _moments(self, linear: Linear, data: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Second moment and mean of each group's inputs; about the mean where biases are refitted."""
        rows, _ = linear.rows(data, seed=self.context.seed)
        means = [r.mean(axis=0, dtype=np.float64) * self.settings.refit for r in rows]
        centred = [r.astype(np.float64) - m for r, m in zip(rows, means, strict=True)]
        return [c.T @ c / max(1, len(c)) for c in centred], means

    def _prune(self, linear: Linear, counts: np.ndarray, env: Environment | None) -> bool:
        matrix, limit = linear.matrix(), self.limits.get(str(linear.node.name))
        if limit is not None:
            falling = -np.sort(-np.abs(matrix), axis=1)
            most = [limit.largest_kept(r[r > 0]) for r in falling]
            # By its norm a row is only known to fit once the weights that stay have moved.
            if self.settings.method == "l1" or limit.bound == "omega":
                counts = np.minimum(counts, most)
        if self.settings.method == "l1":
            pruned = keep_largest(matrix, counts)
        else:
            assert env is not None
            moments, _ = self._moments(linear, env[linear.node.inputs[0]])  # type: ignore[index]
            pruned = obs.prune_rows(
                matrix,
                moments,
                counts,
                limit.fits if limit is not None else lambda _: True,
                lambda done, total: self.context.progress(f"prune {linear.node.name}", done, total),
            )
        if np.array_equal(pruned, matrix):
            return False
        self._replace(linear, linear.stored(pruned).astype(linear.weight.dtype))
        return True

    def _replace(self, linear: Linear, weight: np.ndarray) -> None:
        """The new weight under the old name, unless another node reads that too."""
        node, value = linear.node, linear.node.inputs[1]
        assert value is not None
        if len(list(value.uses())) == 1 and not value.is_graph_output():
            value.const_value = ir.Tensor(weight, name=value.name)
        else:
            node.replace_input_with(1, self.edit.constant(f"{value.name}_pruned", weight))

    def _refit(self, linear: Linear, env: Environment, changed: bool) -> list[ir.Node]:
        """Move the bias to where the mean of the layer's output is the float model's; returns added nodes."""
        node = linear.node
        wanted = self.outputs.pop(node.outputs[0])
        if not (changed and self.settings.refit):
            return []
        env.step([node])
        found = env.values[node.outputs[0]]
        axis = linear.channel_axis % found.ndim
        others = tuple(i for i in range(found.ndim) if i != axis)
        shift = (wanted.astype(np.float64) - found).mean(axis=others)
        if not np.any(shift):
            return []
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        added = set_bias(self.edit, linear, shift if bias is None else bias.reshape(-1) + shift)
        for new in added:
            env.moved(node.outputs[0], new.outputs[0], len(new.outputs[0].consumers()))
        return added
