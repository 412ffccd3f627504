"""Circuits that every operator of the integer level occurs in; a case adds nodes to an ``IntegerBuilder``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def image(b: Any, channels: int = 2, size: tuple[int, ...] = (5, 4), **kw: int) -> str:
    return b.encrypt("x", (channels, *size), **kw)


def vector(b: Any, width: int = 6, **kw: int) -> str:
    return b.encrypt("x", (width,), **kw)


CASES: dict[str, Callable[[Any], str]] = {
    "gemm": lambda b: b.dense(vector(b), 3),
    "gemm-untransposed": lambda b: b.op("Gemm", vector(b), b.constant(np.arange(12).reshape(6, 2) - 5)),
    "matmul-right": lambda b: b.op(
        "MatMul", b.encrypt("x", (3, 4)), b.constant(np.arange(8).reshape(4, 2) - 3)
    ),
    "matmul-left": lambda b: b.op(
        "MatMul", b.constant(np.arange(6).reshape(2, 3) - 2), b.encrypt("x", (3, 4))
    ),
    "conv": lambda b: b.conv(image(b), 3, (3, 2)),
    "conv-pads": lambda b: b.conv(image(b), 3, (3, 3), pads=[1, 0, 2, 1]),
    "conv-strides": lambda b: b.conv(image(b), 3, (2, 2), strides=[2, 1]),
    "conv-dilations": lambda b: b.conv(image(b), 2, (2, 2), dilations=[3, 2]),
    "conv-groups": lambda b: b.conv(image(b, 4), 4, (2, 2), group=2, pads=[1, 1, 1, 1]),
    "conv-depthwise": lambda b: b.conv(image(b, 3), 3, (3, 3), group=3),
    "conv-1d": lambda b: b.conv(image(b, 2, (7,)), 3, (3,), pads=[1, 0], strides=[2]),
    "add-constant": lambda b: b.op("Add", image(b), b.constant([[[3]], [[-4]]])),
    "add-scalar-left": lambda b: b.op("Add", b.constant(5), vector(b)),
    "sub-constant": lambda b: b.op("Sub", vector(b), b.constant(np.arange(6))),
    "sub-from-constant": lambda b: b.op("Sub", b.constant(9), vector(b)),
    "mul-constant": lambda b: b.op("Mul", image(b), b.constant([[[3]], [[-2]]])),
    "mul-left": lambda b: b.op("Mul", b.constant(-3), vector(b)),
    "neg": lambda b: b.op("Neg", vector(b, low=-3, high=3)),
    "add-two": lambda b: b.op("Add", x := vector(b), b.op("Mul", x, b.constant(2))),
    "add-itself": lambda b: b.op("Add", x := vector(b), x),
    "sub-two": lambda b: b.op("Sub", b.dense(x := vector(b), 6), x),
    "sum-axes": lambda b: b.op("ReduceSum", image(b), b.constant([2, -1], np.int64), keepdims=0),
    "sum-keepdims": lambda b: b.op("ReduceSum", image(b), b.constant([1], np.int64)),
    "sum-noop": lambda b: b.op("ReduceSum", image(b), noop_with_empty_axes=1),
    "reshape": lambda b: b.op("Reshape", image(b), b.constant([0, 4, -1], np.int64)),
    "flatten": lambda b: b.op("Flatten", image(b)),
    "transpose": lambda b: b.op("Transpose", image(b), perm=[0, 2, 3, 1]),
    "squeeze": lambda b: b.op("Squeeze", image(b, 1), b.constant([1], np.int64)),
    "unsqueeze": lambda b: b.op("Unsqueeze", vector(b), b.constant([1, 3], np.int64)),
    "identity": lambda b: b.op("Identity", vector(b)),
    "straight-through": vector,
    "table-on-input": lambda b: b.lookup(vector(b), b.rng.integers(-3, 4, (1, 8)), [0]),
    "table-per-channel": lambda b: b.activate(b.dense(vector(b, 3, high=3), 4, 1), low=-4, high=3),
    "table-shared": lambda b: b.activate(b.dense(vector(b, 3, high=3), 4, 1), shared=True),
    "table-of-an-image": lambda b: b.activate(b.conv(image(b, 1, (3, 3), high=1), 2, (2, 2))),
    "table-on-the-last-axis": lambda b: b.lookup(
        b.encrypt("x", (2, 3), 0, 9), b.rng.integers(0, 8, (3, 8)), [0, 1, 2], axis=2
    ),
    "table-of-a-table": lambda b: b.lookup(
        b.lookup(vector(b), b.rng.integers(-2, 2, (1, 8)), [0]), b.rng.integers(0, 8, (1, 4)), [-2]
    ),
    "table-with-a-step": lambda b: b.lookup(
        b.op("Mul", vector(b, high=3), b.constant(4)), b.rng.integers(0, 8, (1, 4)), [0], step=4
    ),
    "constant-table": lambda b: b.lookup(vector(b), np.full((1, 8), 5), [0]),
    "round-exact": lambda b: b.activate(b.dense(vector(b), 3), 3),
    "two-layers": lambda b: b.dense(b.activate(b.dense(vector(b), 4), 3), 3),
}
