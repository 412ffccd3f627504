"""Emission of operators that move values and change none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from concrete import fhe

from ...ir.movement import CANDIDATES
from .scope import Emission, Scope, Traced, refuse


def _reshape(scope: Scope, node: ir.Node) -> Traced:
    """To the shape that onnxruntime found; it knows what 0 and -1 mean, and where an axis goes."""
    return scope.operand(node, 0).reshape(scope.shape(node.outputs[0]))


def _transpose(scope: Scope, node: ir.Node) -> Traced:
    rank = len(scope.shape(node.inputs[0]))
    axes = list(node.attributes.get_ints("perm", range(rank - 1, -1, -1)))
    return np.transpose(scope.operand(node, 0), axes)


def _identity(scope: Scope, node: ir.Node) -> Traced:
    return scope.operand(node, 0)


def _move(scope: Scope, node: ir.Node) -> Traced:
    """Any operator that copies elements: one index into all elements of its inputs, laid end to end."""
    movement = scope.plan.movements[node]
    if movement is None:
        raise refuse(node, "this operator computes, or mixes samples", allowed="copies of elements")
    shape, sizes = scope.shape(node.outputs[0]), _sizes(scope, movement.sources)
    parts = [scope.values[v].reshape((size,)) for v, size in sizes]
    places = _of_batch(movement.places.ravel(), [size for _, size in sizes], scope.plan.batch)
    if movement.filled.any():
        # Each constant once.
        constants, numbers = np.unique(movement.constants[movement.filled], return_inverse=True)
        total = sum(size for _, size in sizes)
        places[:, movement.filled.ravel()] = total + numbers.ravel()
        parts.append(fhe.zeros(constants.shape) + np.asarray(np.rint(constants), np.int64))
    if len(parts) > 1:
        # Copies of their own: what is laid end to end must agree on being signed.
        flat = np.concatenate(tuple(p + np.zeros((1,), np.int64) for p in parts))
    else:
        flat = parts[0]
    return _pick(scope, flat, places.ravel()).reshape(shape)


def _of_batch(places: np.ndarray, sizes: list[int], batch: int) -> np.ndarray:
    """Where the elements of every sample (batch, places) lie in all samples of all sources, laid end to end.

    Args:
        places: Where those of one sample lie in one sample of all sources, laid end to end.
        sizes: Elements of the sources, in all samples.
        batch: Samples.
    """
    each = np.array(sizes) // batch
    ends = np.cumsum(each)
    source = np.searchsorted(ends, places, side="right").clip(0, len(sizes) - 1)
    inside = places - (ends - each)[source]
    first = batch * (ends - each)[source] + inside
    return np.asarray(first + np.arange(batch)[:, np.newaxis] * each[source])


def _pick(scope: Scope, flat: Traced, places: np.ndarray) -> Traced:
    """Elements of a vector by their numbers."""
    if not scope.plan.wide:
        return flat[places]
    # Concrete 2.11 has no such index where tables past 8 bits split every integer; a matrix of ones will do.
    ones = np.zeros((int(flat.shape[0]), places.size), np.int64)
    ones[places, np.arange(places.size)] = 1
    return flat.reshape((1, flat.shape[0])) @ ones


def _sizes(scope: Scope, values: tuple[ir.Value, ...]) -> list[tuple[ir.Value, int]]:
    return [(v, int(np.prod(scope.shape(v)))) for v in values]


_MOVES: dict[str, Emission] = dict.fromkeys(CANDIDATES, _move)
EMIT: dict[str, Emission] = _MOVES | {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Identity": _identity,
}
