"""What becomes of a scale for each channel behind operators that move elements, choose one, or average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import variable_inputs

SAME_SCALE = 1e-4
"""Relative difference of scales that count as the same."""
TRIAL_SEED = 8191
"""Seed of the values that scales are tried with. Callers try random scales, which must not be the same."""
TRIALS = 4
"""Runs on random values: in one of them an operator that chooses an element may happen to choose the same one
with and without the scales."""


def spread(array: np.ndarray, value: ir.Value) -> np.ndarray:
    """``array`` broadcast to the shape of one sample of ``value`` (batch 1)."""
    assert value.shape is not None
    shape = [1, *(d if isinstance(d, int) else 1 for d in list(value.shape)[1:])]
    return np.broadcast_to(array, shape).astype(np.float32).copy()


def carried(
    path: Sequence[ir.Node], value: ir.Value, scale: np.ndarray, nothing: float = 1.0
) -> np.ndarray | None:
    """The scale of each element behind ``path``, or None where elements of different scale are mixed.

    Pooling that counts its padding shrinks the values at the border, but not their scale: what the path makes
    of the scales is compared with what it makes of ones. That the scales come through is then tried on random
    values, so no operator's semantics are written down here. Other tensors that the path reads (what
    ``value`` is concatenated with) have a scale of 1.

    Args:
        path: Operators that move, choose or average elements, in order; the first reads ``value``.
        value: A tensor of static shape but for the batch.
        scale: Positive, broadcastable to one sample of ``value``.
        nothing: The scale of what is 0 whatever else is: the zeros of a Pad.
    """
    return carried_all(path, {value: scale}, nothing)


def carried_all(
    path: Sequence[ir.Node], scales: dict[ir.Value, np.ndarray], nothing: float = 1.0
) -> np.ndarray | None:
    """The same for several tensors that the path reads, each with its scale."""
    made = {o for n in path for o in n.outputs}
    read = dict.fromkeys(v for n in path for v in variable_inputs(n) if v not in made)
    given = {v: spread(scales.get(v, np.ones(1)), v) for v in [*read, *scales]}
    if not path:
        return given[next(iter(scales))]
    graph = path[0].graph
    opset = graph.opset_imports.get("", 21) if isinstance(graph, ir.Graph) else 21

    def run(arrays: dict[ir.Value, np.ndarray]) -> np.ndarray:
        inputs = {v: a.astype(np.float32) for v, a in arrays.items()}
        return runtime.run_nodes(path, inputs, [path[-1].outputs[0]], opset)[0]

    ones = run({v: np.ones_like(a) for v, a in given.items()})
    found = np.where(ones != 0, run(given) / np.where(ones != 0, ones, 1.0), nothing)
    found = found.astype(np.float32)
    random = np.random.default_rng(TRIAL_SEED)
    for _ in range(TRIALS):
        sample = {v: random.uniform(0.5, 1.5, a.shape) for v, a in given.items()}
        wanted = run({v: a * sample[v] for v, a in given.items()})
        if not np.allclose(found * run(sample), wanted, rtol=SAME_SCALE, atol=0, equal_nan=True):
            return None
    return found
