"""Emission of operators that move values and change none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .scope import Emission, Scope, Traced


def _reshape(scope: Scope, node: ir.Node) -> Traced:
    """To the shape that onnxruntime found; it knows what 0 and -1 mean, and where an axis goes."""
    return scope.operand(node, 0).reshape(scope.shape(node.outputs[0]))


def _transpose(scope: Scope, node: ir.Node) -> Traced:
    rank = len(scope.shape(node.inputs[0]))
    axes = list(node.attributes.get_ints("perm", range(rank - 1, -1, -1)))
    return np.transpose(scope.operand(node, 0), axes)


def _identity(scope: Scope, node: ir.Node) -> Traced:
    return scope.operand(node, 0)


EMIT: dict[str, Emission] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Identity": _identity,
}
