"""Offsets that vanish in biases: what a linear layer makes of the offsets of what it reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import SAME_SCALE, spread
from ...analysis.regions.linear import Linear
from ...ir import runtime
from ...ir.graph import variable_inputs

Path = Sequence[ir.Node]
"""Operators that move, choose or average elements, in order, in front of a linear layer."""


def vanishes(linear: Linear, path: Path, value: ir.Value, shape: Sequence[int]) -> bool:
    """Whether any offsets of ``value``, shaped ``shape``, come to one number for each output of the layer.

    They do not where a padded convolution reads them: at the border some of them are missing.
    """
    random = np.random.default_rng(0)
    size = int(np.prod([d for d in shape if d > 0]))
    # Positive numbers: as the operators' zeros never are among the largest of a window.
    offset = spread(random.uniform(1, 2, size).reshape(shape), value)
    sample = random.uniform(0.5, 1.5, offset.shape).astype(np.float32)
    scale = spread(random.uniform(1, 2, size).reshape(shape), value)
    if path:
        plain, moved = (_run(path, value, scale * sample + o) for o in (0.0, offset))
        if not np.allclose(moved - plain, arriving(path, value, offset), rtol=SAME_SCALE, atol=SAME_SCALE):
            return False
    if linear.node.op_type == "Gemm":
        return True
    data = linear.node.inputs[0]
    assert data is not None
    arrived = arriving(path, value, offset).astype(np.float32)
    with_offset, without = (_run([linear.node], data, a) for a in (arrived, np.zeros_like(arrived)))
    moved = np.moveaxis(with_offset - without, linear.channel_axis, 0).reshape(linear.channels, -1)
    size_of = np.abs(moved).max(initial=0.0)
    return bool(np.allclose(moved, moved[:, :1], rtol=0, atol=SAME_SCALE * size_of))


def arriving(path: Path, value: ir.Value, offset: np.ndarray) -> np.ndarray:
    """What becomes of offsets (broadcastable to one sample of ``value``) behind a path: float64."""
    given = spread(offset, value)
    if not path:
        return given.astype(np.float64)
    moved, plain = (_run(path, value, a).astype(np.float64) for a in (given, np.zeros_like(given)))
    return np.asarray(moved - plain)


def bias_of(linear: Linear, path: Path, value: ir.Value, offset: np.ndarray) -> np.ndarray:
    """What offsets of ``value`` add to each output of the layer: (out), float64.

    Args:
        linear: The layer, with the weights that meet the values themselves.
        path: In front of it.
        value: The tensor with the offsets.
        offset: Broadcastable to one sample of it; ``vanishes`` holds for their shape.
    """
    arrived, matrix = arriving(path, value, offset)[0], linear.matrix()
    if linear.node.op_type != "Conv":
        return np.asarray(matrix @ arrived.reshape(-1, matrix.shape[1])[0])
    # Away from the border every weight of a channel meets the same offset.
    channels = arrived.reshape(len(arrived), -1)[:, 0].reshape(linear.groups, -1)
    kernels = matrix.reshape(linear.groups, linear.channels // linear.groups, channels.shape[1], -1)
    return np.asarray(np.einsum("goik,gi->go", kernels, channels)).reshape(-1)


def _run(path: Path, value: ir.Value, array: np.ndarray) -> np.ndarray:
    """What ``path`` makes of ``value``; other tensors that it reads are 0."""
    made = {o for n in path for o in n.outputs}
    others = [v for v in dict.fromkeys(v for n in path for v in variable_inputs(n)) if v not in made]
    zeros = {v: np.zeros_like(spread(np.zeros(1), v)) for v in others if v is not value}
    graph = path[0].graph
    opset = graph.opset_imports.get("", 21) if isinstance(graph, ir.Graph) else 21
    return runtime.run_nodes(path, {value: array.astype(np.float32), **zeros}, [path[-1].outputs[0]], opset)[
        0
    ]
