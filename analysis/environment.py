"""Walking a graph node by node with real values: each layer sees what the layers before really produce."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..ir import runtime, sample_axes, samples
from ..ir.graph import variable_inputs
from ..ir.movement import sample_shape

CHUNK_SAMPLES = 256
"""Most samples of one run; more are run in parts."""
_PROBED_SAMPLES = 2
"""Samples of the runs that show which axis holds the samples; a run of no more tells nothing."""
MAX_RUN_ELEMENTS = 2**25
"""Elements that one node's output has in one run; of larger tensors fewer samples are run at once."""


class Environment:
    """Values of a graph on some samples, computed on the way and dropped after their last use.

    Args:
        model: The model that is walked; nodes may be replaced on the way.
        data: Arrays for the graph inputs, samples on axis 0.
        keep: Values that are kept to the end.
    """

    def __init__(
        self, model: ir.Model, data: Mapping[str, np.ndarray], keep: Iterable[ir.Value] = ()
    ) -> None:
        self.opset = model.graph.opset_imports.get("", 21)
        self.values: dict[ir.Value, np.ndarray] = {
            v: np.asarray(data[v.name or ""]) for v in model.graph.inputs if (v.name or "") in data
        }
        self._total = max((len(a) for a in self.values.values()), default=1)
        self._axes: dict[ir.Value, int | None] = dict.fromkeys(self.values, 0)
        self._keep = set(keep)
        self._uses = Counter(v for n in model.graph for v in variable_inputs(n))

    def __getitem__(self, value: ir.Value) -> np.ndarray:
        if value not in self.values and value.const_value is not None:
            return value.const_value.numpy()  # a weight may be an output as well
        return self.values[value]

    def step(self, nodes: Sequence[ir.Node]) -> None:
        """Compute the outputs of ``nodes`` (in order), in chunks of samples."""
        if not nodes:
            return
        produced = {o for n in nodes for o in n.outputs}
        read = [v for v in dict.fromkeys(v for n in nodes for v in variable_inputs(n)) if v not in produced]
        wanted = [o for n in nodes for o in n.outputs if o.name]
        whole = [v for v in read if self._axes[v] is None]
        total = self._total if len(whole) < len(read) else 1
        widest = max((math.prod(sample_shape(v) or ()) for v in (*read, *wanted)), default=1)
        size = max(1, min(CHUNK_SAMPLES, MAX_RUN_ELEMENTS // max(1, widest)))
        chosen = samples.parts(total, size)
        sizes = [p.stop - p.start for p in chosen]
        found = self._run(nodes, read, wanted, chosen)
        axes = self._axes_of(nodes, read, wanted, total, [[a.shape for a in r] for r in found], sizes)
        for value, axis, arrays in zip(wanted, axes, zip(*found, strict=True), strict=True):
            self._axes[value] = axis
            self.values[value] = samples.joined(arrays, axis, str(value.name))
            if value not in self._uses:  # made on the way, such as the sum with a fitted offset
                self._uses[value] = len({u.node for u in value.uses()})

    def _run(
        self,
        nodes: Sequence[ir.Node],
        read: Sequence[ir.Value],
        wanted: Sequence[ir.Value],
        chosen: Sequence[slice],
    ) -> list[list[np.ndarray]]:
        """Run nodes on some samples at a time; what does not depend on them is read whole."""
        runs = [{v: samples.taken(self.values[v], self._axes[v], part) for v in read} for part in chosen]
        return runtime.run_nodes_often(nodes, runs, wanted, self.opset)

    def _axes_of(
        self,
        nodes: Sequence[ir.Node],
        read: Sequence[ir.Value],
        wanted: Sequence[ir.Value],
        total: int,
        shapes: Sequence[Sequence[tuple[int, ...]]],
        sizes: Sequence[int],
    ) -> list[int | None]:
        """The axis of the samples of what ``nodes`` gave, None for what does not depend on them."""
        if total < self._total:
            return [None] * len(wanted)
        if len(sizes) == 1 and total > _PROBED_SAMPLES:
            if all(sample_axes.is_clear(v) for v in wanted):
                return [sample_axes.axis_of(v) for v in wanted]
            # Their shapes do not tell: a few samples, in two numbers of them, do.
            sizes = [1, 2]
            found = self._run(nodes, read, wanted, [slice(0, 1), slice(0, 2)])
            shapes = [[a.shape for a in r] for r in found]
        if len(sizes) == 1:
            return [0] * len(wanted)  # so few are never run in parts
        return [
            samples.following(column, sizes, str(v.name))
            for v, column in zip(wanted, zip(*shapes, strict=True), strict=True)
        ]

    def done(self, node: ir.Node) -> None:
        """Say that ``node`` has been walked: values nobody waits for are dropped."""
        self.read(node.inputs)

    def read(self, values: Iterable[ir.Value | None]) -> None:
        """Say that a node with these inputs has been walked."""
        for value in dict.fromkeys(v for v in values if v is not None):
            self._uses[value] -= 1
            if self._uses[value] <= 0 and value not in self._keep:
                self.values.pop(value, None)

    def moved(self, old: ir.Value, new: ir.Value, readers: int) -> None:
        """Say that ``readers`` nodes still to come read ``new`` in place of ``old``."""
        self._uses[new] += readers
        self._uses[old] -= readers
        if self._uses[old] <= 0 and old not in self._keep:
            self.values.pop(old, None)
