"""Emission of matrix products and convolutions with constant weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from concrete import fhe

from ...ir.graph import int_of
from .scope import Emission, Scope, Traced, refuse


def _gemm(scope: Scope, node: ir.Node) -> Traced:
    plain = node.attributes.get_float("alpha", 1.0) == 1.0 and not int_of(node, "transA", 0)
    if len([v for v in node.inputs if v is not None]) > 2 or not plain:
        raise refuse(
            node,
            "only a plain Gemm runs encrypted",
            found="a bias, alpha or transA",
            allowed="x and W, alpha 1, transA 0",
            do="run lower-to-integer, which puts a bias into the tables",
        )
    if not scope.is_constant(node, 1):
        raise _encrypted_weights(node)
    weights = scope.operand(node, 1)
    return scope.operand(node, 0) @ (weights.T if int_of(node, "transB", 0) else weights)


def _matmul(scope: Scope, node: ir.Node) -> Traced:
    left, right = scope.operand(node, 0), scope.operand(node, 1)
    return np.matmul(left, right) if isinstance(left, np.ndarray) else left @ right


def _conv(scope: Scope, node: ir.Node) -> Traced:
    if not scope.is_constant(node, 1):
        raise _encrypted_weights(node)
    weights = scope.operand(node, 1)
    dims = weights.ndim - 2
    if dims not in (1, 2) or len([v for v in node.inputs if v is not None]) > 2:
        raise refuse(
            node, "this convolution does not run encrypted", allowed="one or two dimensions, no bias"
        )
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise refuse(node, "auto_pad does not run encrypted", do="run normalize, which makes pads explicit")
    pads = list(node.attributes.get_ints("pads", [0] * (2 * dims)))
    strides = list(node.attributes.get_ints("strides", [1] * dims))
    dilations = list(node.attributes.get_ints("dilations", [1] * dims))
    x, shape = scope.operand(node, 0), scope.shape(node.inputs[0])
    if dims == 1:
        # Concrete has convolutions of two dimensions only.
        shape = (*shape[:2], 1, shape[2])
        x, weights = x.reshape(shape), weights[:, :, np.newaxis, :]
        pads, strides, dilations = [0, pads[0], 0, pads[1]], [1, *strides], [1, *dilations]
    y = fhe.conv(
        _pad(x, shape, pads),
        weights,
        strides=tuple(strides),
        dilations=tuple(dilations),
        group=int_of(node, "group", 1),
    )
    return y.reshape(scope.shape(node.outputs[0])) if dims == 1 else y


def _pad(x: Traced, shape: tuple[int, ...], pads: list[int]) -> Traced:
    """Zeros around the last two axes; ``fhe.conv`` itself does not pad."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    batch, channels, height, width = shape
    padded = fhe.zeros((batch, channels, top + height + bottom, left + width + right))
    padded[:, :, top : top + height, left : left + width] = x
    return padded


def _encrypted_weights(node: ir.Node) -> Exception:
    return refuse(
        node,
        "two encrypted tensors are multiplied",
        found="weights that depend on the input",
        allowed="constant weights",
        do="keep this operator out of the encrypted region",
    )


EMIT: dict[str, Emission] = {"Gemm": _gemm, "MatMul": _matmul, "Conv": _conv}
