"""Walking a graph node by node with real values: each layer sees what the layers before really produce."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import variable_inputs
from ...ir.movement import sample_shape

CHUNK = 256
MOST_RUN = 2**25
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
        self._keep = set(keep)
        self._uses = Counter(v for n in model.graph for v in variable_inputs(n))

    def __getitem__(self, value: ir.Value) -> np.ndarray:
        return self.values[value]

    def step(self, nodes: Sequence[ir.Node]) -> None:
        """Compute the outputs of ``nodes`` (in order), in chunks of samples."""
        if not nodes:
            return
        produced = {o for n in nodes for o in n.outputs}
        read = [v for v in dict.fromkeys(v for n in nodes for v in variable_inputs(n)) if v not in produced]
        wanted = [o for n in nodes for o in n.outputs if o.name]
        # What the client computes of sizes alone has no axis of samples.
        single = {v: self.values[v] for v in read if not self.values[v].ndim}
        total = max((len(self.values[v]) for v in read if v not in single), default=1)
        widest = max((math.prod(sample_shape(v) or ()) for v in (*read, *wanted)), default=1)
        size = max(1, min(CHUNK, MOST_RUN // max(1, widest)))
        parts = [
            runtime.run_nodes(
                nodes,
                single | {v: self.values[v][s : s + size] for v in read if v not in single},
                wanted,
                self.opset,
            )
            for s in range(0, total, size)
        ]
        for value, arrays in zip(wanted, zip(*parts, strict=True), strict=True):
            self.values[value] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
            if value not in self._uses:  # made on the way, such as the sum with a fitted offset
                self._uses[value] = len({u.node for u in value.uses()})

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
