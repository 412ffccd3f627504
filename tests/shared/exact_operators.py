"""Quantized models in exact integer arithmetic, by nothing of onnxruntime: what is right everywhere.

onnx's reference evaluator has ONNX's own operators; those of onnxruntime's domain that its quantizer writes
are here. With ``saturating=True`` products are those of an x86-64 without VNNI: two neighbouring products of
uint8 and int8 are added in 16 bits, which saturate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

CONTRIB = "com.microsoft"


def evaluate(
    model: onnx.ModelProto, data: Mapping[str, np.ndarray], saturating: bool = False
) -> dict[str, np.ndarray]:
    """Arrays by output name."""
    operators = [*SATURATING, *OPERATORS] if saturating else OPERATORS
    values = ReferenceEvaluator(model, new_ops=operators).run(None, dict(data))
    return dict(zip([o.name for o in model.graph.output], values, strict=True))


def product(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray, b_zero: np.ndarray) -> np.ndarray:
    """(a - a_zero) @ (b - b_zero) in integers."""
    return (a.astype(np.int64) - np.int64(a_zero)) @ (b.astype(np.int64) - b_zero.astype(np.int64))


def saturated(a: np.ndarray, b: np.ndarray, a_zero: np.ndarray, b_zero: np.ndarray) -> np.ndarray:
    """The same with ``vpmaddubsw``, where b is int8."""
    if b.dtype == np.uint8:
        return product(a, b, a_zero, b_zero)
    lift = 128 if a.dtype == np.int8 else 0
    left, right = a.astype(np.int64) + lift, b.astype(np.int64)
    zero = np.int64(a_zero) + lift
    if left.shape[-1] % 2:
        left = np.concatenate([left, np.zeros_like(left[..., :1])], axis=-1)
        right = np.concatenate([right, np.zeros_like(right[:1])])
    pairs = left[..., 0::2, None] * right[0::2] + left[..., 1::2, None] * right[1::2]
    total = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=-2)
    bz = b_zero.astype(np.int64)
    return total - zero * right.sum(axis=0) - left.sum(axis=-1, keepdims=True) * bz + b.shape[0] * zero * bz


def quantized(real: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """To even, as QuantizeLinear does."""
    limits = np.iinfo(zero.dtype)
    steps = np.rint(real / np.float32(scale)).astype(np.int64) + np.int64(zero)
    return np.clip(steps, limits.min, limits.max).astype(zero.dtype)


def real(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """As DequantizeLinear does."""
    return ((codes.astype(np.int64) - np.int64(zero)) * np.float32(scale)).astype(np.float32)


def _zero(given: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.zeros((), like.dtype) if given is None else given


def _make(dot) -> list[type[OpRun]]:
    """The operators that multiply matrices, with one way of doing so."""

    class MatMulInteger(OpRun):
        op_domain = ""

        def _run(self, a, b, a_zero=None, b_zero=None):
            return (dot(a, b, _zero(a_zero, a), _zero(b_zero, b)).astype(np.int32),)

    class QLinearMatMul(OpRun):
        op_domain = ""

        def _run(self, a, a_scale, a_zero, b, b_scale, b_zero, scale, zero):
            total = dot(a, b, a_zero, b_zero).astype(np.float32)
            return (quantized(total * (a_scale * b_scale), scale, zero),)

    class QGemm(OpRun):
        op_domain = CONTRIB

        def _run(
            self, a, a_scale, a_zero, b, b_scale, b_zero, c=None, scale=None, zero=None,
            alpha=1.0, transA=0, transB=0,  # noqa: N803
        ):  # fmt: skip
            total = dot(a.T if transA else a, b.T if transB else b, a_zero, b_zero)
            total = total + (0 if c is None else c.astype(np.int64))
            found = total.astype(np.float32) * (np.float32(alpha or 1.0) * a_scale * b_scale)
            return (found.astype(np.float32) if zero is None else quantized(found, scale, zero),)

    return [MatMulInteger, QLinearMatMul, QGemm]


class QLinearAdd(OpRun):
    """A sum of two tensors, rounded once."""

    op_domain = CONTRIB

    def _run(self, a, a_scale, a_zero, b, b_scale, b_zero, scale, zero):
        return (quantized(real(a, a_scale, a_zero) + real(b, b_scale, b_zero), scale, zero),)


class QLinearSigmoid(OpRun):
    """A sigmoid between two quantizers."""

    op_domain = CONTRIB

    def _run(self, x, x_scale, x_zero, scale, zero):
        return (quantized(1 / (1 + np.exp(-real(x, x_scale, x_zero))), scale, zero),)


class QLinearAveragePool(OpRun):
    """Averages over windows without padding."""

    op_domain = CONTRIB

    def _run(self, x, x_scale, x_zero, scale, zero, **attributes):
        kernel, strides = attributes["kernel_shape"], attributes["strides"]
        assert not any(attributes.get("pads") or [])
        windows = np.lib.stride_tricks.sliding_window_view(real(x, x_scale, x_zero), kernel, axis=(2, 3))
        means = windows[:, :, :: strides[0], :: strides[1]].mean(axis=(-2, -1))
        return (quantized(means, scale, zero),)


OPERATORS: list[type[OpRun]] = [*_make(product)[2:], QLinearAdd, QLinearSigmoid, QLinearAveragePool]
SATURATING: list[type[OpRun]] = _make(saturated)
