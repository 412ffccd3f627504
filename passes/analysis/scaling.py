"""What becomes of a scale for each channel behind layout operators and average pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime

CLOSE = 1e-4
"""Relative difference of scales that are taken for the same."""


def spread(array: np.ndarray, value: ir.Value) -> np.ndarray:
    """``array`` broadcast to the shape of one sample of ``value`` (batch 1)."""
    assert value.shape is not None
    shape = [1, *(d if isinstance(d, int) else 1 for d in list(value.shape)[1:])]
    return np.broadcast_to(array, shape).astype(np.float32).copy()


def carried(path: Sequence[ir.Node], value: ir.Value, scale: np.ndarray) -> np.ndarray | None:
    """The scale of each element behind ``path``, or None where elements of different scale are mixed.

    Pooling that counts its padding shrinks the values at the border, but not their scale: what the path makes
    of the scales is compared with what it makes of ones. That the scales come through is then tried on random
    values, so no operator's semantics are written down here.

    Args:
        path: Layout and pooling operators, in order; the first reads ``value``.
        value: A tensor of static shape but for the batch.
        scale: Positive, broadcastable to one sample of ``value``.
    """
    given = spread(scale, value)
    if not path:
        return given
    graph = path[0].graph
    opset = graph.opset_imports.get("", 21) if isinstance(graph, ir.Graph) else 21

    def run(array: np.ndarray) -> np.ndarray:
        return runtime.run_nodes(path, {value: array.astype(np.float32)}, [path[-1].outputs[0]], opset)[0]

    ones = run(np.ones_like(given))
    found = np.where(ones != 0, run(given) / np.where(ones != 0, ones, 1.0), 1.0).astype(np.float32)
    sample = np.random.default_rng(0).uniform(0.5, 1.5, given.shape)
    wanted = run(given * sample)
    if not np.allclose(found * run(sample), wanted, rtol=CLOSE, atol=0, equal_nan=True):
        return None
    return found
