"""Emission of sums, differences, products with constants, and reductions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.graph import int_of
from .scope import Emission, Scope, Traced, refuse


def _operands(scope: Scope, node: ir.Node) -> tuple[Traced, Traced]:
    """Both operands; a scalar constant gets the rank of the result, for Concrete wants tensors."""
    rank = len(scope.shape(node.outputs[0]))
    left, right = (
        x.reshape((1,) * (rank - x.ndim) + x.shape) if isinstance(x, np.ndarray) else x
        for x in (scope.operand(node, 0), scope.operand(node, 1))
    )
    return left, right


def _add(scope: Scope, node: ir.Node) -> Traced:
    left, right = _operands(scope, node)
    if left is right:
        # Concrete takes the noise of two summands to be independent; that of one and the same adds up faster.
        return left * np.full((1,) * left.ndim, 2)
    return right + left if isinstance(left, np.ndarray) else left + right


def _sub(scope: Scope, node: ir.Node) -> Traced:
    left, right = _operands(scope, node)
    return np.subtract(left, right)


def _mul(scope: Scope, node: ir.Node) -> Traced:
    left, right = _operands(scope, node)
    return right * left if isinstance(left, np.ndarray) else left * right


def _neg(scope: Scope, node: ir.Node) -> Traced:
    return -scope.operand(node, 0)


def _reduce_sum(scope: Scope, node: ir.Node) -> Traced:
    x = scope.operand(node, 0)
    rank = len(scope.shape(node.inputs[0]))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = [int(a) for a in scope.operand(node, 1).ravel()]
    else:
        axes = list(node.attributes.get_ints("axes", []))
    if not axes:
        if int_of(node, "noop_with_empty_axes", 0):
            return x
        axes = list(range(rank))
    axes = sorted({a % rank for a in axes})
    if 0 in axes:
        raise refuse(node, "a sum runs over the batch axis", found=f"axes {axes}", allowed="axes from 1 on")
    return np.sum(x, axis=tuple(axes), keepdims=bool(int_of(node, "keepdims", 1)))


EMIT: dict[str, Emission] = {
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Neg": _neg,
    "ReduceSum": _reduce_sum,
}
