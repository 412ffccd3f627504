"""Whether a node works element by element, found out by running it: no list of operators to maintain."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.dialect import DOMAIN
from ...ir.graph import constant_of
from ...ir.probing import NodeProber

PROBED_POSITIONS = 6
"""Positions that are changed one at a time; operators that mix elements show it at the first."""


class ElementwiseProbe(NodeProber[bool]):
    """Answers whether a node works element by element."""

    def __call__(self, node: ir.Node, variable: list[ir.Value]) -> bool:
        """Whether every output element depends on the element of the same place of ``variable`` alone.

        Several tensors may broadcast, but not along the batch.

        Args:
            node: The node.
            variable: Its inputs that are not constant. They must have a known rank.
        """
        if (
            node.domain == DOMAIN
            or len(node.outputs) != 1
            or node.op_type.startswith(("Random", "Bernoulli"))
        ):
            return False
        return bool(self.ask(node, variable, lambda: self._probe(node, variable)))

    def _probe(self, node: ir.Node, variable: list[ir.Value]) -> bool:
        random = np.random.default_rng(0)
        values = {v: _sample(v, random) for v in dict.fromkeys(variable)}
        rows = constant_of(node.inputs[0]) if node.op_type == "Gather" else None
        if rows is not None and rows.ndim:  # an index of what there is
            values = {v: a % len(rows) for v, a in values.items()}
        shape = np.broadcast_shapes(*(a.shape for a in values.values()))
        if any(a.ndim != len(shape) or a.shape[:1] != shape[:1] for a in values.values()):
            return False
        runs, places = [values, values], []
        for value, array in values.items():
            for _ in range(PROBED_POSITIONS):
                place = tuple(int(random.integers(n)) for n in array.shape)
                changed = array.copy()
                changed[place] = (1 - array[place]) if array.dtype == bool else array[place] * 2 + 3
                if rows is not None and rows.ndim:
                    changed[place] %= len(rows)
                runs.append({**values, value: changed})
                places.append((array.shape, place))
        found = self.run(node, runs, [node.outputs[0]])
        before, again, *afters = (result for (result,) in found)
        if before.shape != shape or not _same(before, again):
            return False
        for (size, place), after in zip(places, afters, strict=True):
            seen = np.zeros(size, bool)
            seen[place] = True
            if not _same(before, np.where(np.broadcast_to(seen, shape), before, after)):
                return False
        return True


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _sample(value: ir.Value, random: np.random.Generator) -> np.ndarray:
    if value.shape is None:
        raise ValueError("unknown shape")
    shape = [d if isinstance(d, int) else 2 for d in value.shape]
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    if np.issubdtype(dtype, np.bool_):
        return random.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.integer):
        return random.integers(1, 9, shape).astype(dtype)
    return random.uniform(0.1, 2.0, shape).astype(dtype)
