"""Small networks around operators that move, choose, multiply or combine encrypted elements.

Each function returns an ``onnx.ModelProto``; ``NETWORKS`` has them by name, as in ``onnx_fhe.testing.zoo``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from onnx_fhe.testing.zoo import Builder

OPSET = 17
NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {}


def network(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """List a network in ``NETWORKS``."""
    NETWORKS[make.__name__] = make
    return make


def _ints(b: Any, *values: int) -> str:
    return str(b.constant(list(values), np.int64))


def _dense_to(b: Any, x: str, inputs: int, given: list[int]) -> onnx.ModelProto:
    return b.model(b.dense(b.node("Flatten", x), inputs, 3), given, [3])  # type: ignore[no-any-return]


@network
def slice_rows() -> onnx.ModelProto:
    """Half of an image, backwards."""
    b = Builder(OPSET, 1)
    x = b.node("Relu", b.conv("input", 1, 3))
    x = b.node("Slice", x, _ints(b, 3), _ints(b, 0), _ints(b, 2), _ints(b, -2))
    return _dense_to(b, x, 3 * 2 * 4, [1, 6, 6])


@network
def gather_and_tile() -> onnx.ModelProto:
    """Some neurons, twice."""
    b = Builder(OPSET, 2)
    x = b.node("Gather", b.node("Relu", b.dense("input", 6, 5)), _ints(b, 4, 0, 2), axis=1)
    return _dense_to(b, b.node("Tile", x, _ints(b, 1, 2)), 6, [6])


@network
def split_and_swap() -> onnx.ModelProto:
    """Two halves of unequal size, the other way round."""
    b = Builder(OPSET, 3)
    x = b.node("Split", b.node("Relu", b.dense("input", 6, 6)), _ints(b, 2, 4), axis=1)
    b.nodes[-1].output.append("rest")
    return _dense_to(b, b.node("Concat", "rest", x, axis=1), 6, [6])


@network
def pad_reflect() -> onnx.ModelProto:
    """Padding that copies."""
    b = Builder(OPSET, 4)
    x = b.node("Relu", b.conv("input", 1, 2))
    x = b.node("Pad", x, _ints(b, 0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    return _dense_to(b, b.conv(x, 2, 2), 2 * 3 * 3, [1, 5, 5])


@network
def pad_with_a_constant() -> onnx.ModelProto:
    """Padding with a number that no zero point is."""
    b = Builder(OPSET, 5)
    x = b.node("Relu", b.conv("input", 1, 2))
    x = b.node("Pad", x, _ints(b, 0, 0, 1, 0, 0, 0, 0, 1), b.constant(0.4))
    return _dense_to(b, b.conv(x, 2, 2), 2 * 2 * 2, [1, 5, 5])


@network
def resize_nearest() -> onnx.ModelProto:
    """Every pixel four times."""
    b = Builder(OPSET, 6)
    x = b.node("Resize", b.node("Relu", b.conv("input", 1, 2)), "", b.constant([1, 1, 2, 2]))
    return _dense_to(b, b.conv(x, 2, 2, kernel=2), 2 * 3 * 3, [1, 4, 4])


@network
def depth_to_space() -> onnx.ModelProto:
    """Channels become pixels, and back."""
    b = Builder(OPSET, 7)
    x = b.node("DepthToSpace", b.node("Relu", b.conv("input", 1, 4)), blocksize=2)
    x = b.node("SpaceToDepth", b.node("Relu", b.conv(x, 1, 1, pads=[1] * 4)), blocksize=2)
    return _dense_to(b, x, 4 * 2 * 2, [1, 4, 4])


@network
def concat_of_two_scales() -> onnx.ModelProto:
    """Branches of very different range; each channel keeps a scale of its own in the next weights."""
    b = Builder(OPSET, 8)
    x = b.node("Relu", b.conv("input", 1, 2))
    y = b.node("Tanh", b.node("Mul", b.conv("input", 1, 1), b.constant(20.0)))
    y = b.node("Mul", y, b.constant(30.0))
    return _dense_to(b, b.node("Relu", b.conv(b.node("Concat", x, y, axis=1), 3, 2)), 2, [1, 5, 5])


@network
def concat_along_an_image() -> onnx.ModelProto:
    """Side by side in space: a convolution's weights meet both, so they share a scale."""
    b = Builder(OPSET, 9)
    x = b.node("Relu", b.conv("input", 1, 2))
    y = b.node("Relu", b.node("Mul", b.conv("input", 1, 2), b.constant(3.0)))
    return _dense_to(b, b.node("Relu", b.conv(b.node("Concat", x, y, axis=2), 2, 1)), 4, [1, 5, 5])


@network
def concat_of_accumulators() -> onnx.ModelProto:
    """No table before the concat: one behind it for every element."""
    b = Builder(OPSET, 10)
    x = b.node("Concat", b.dense("input", 5, 2), b.dense("input", 5, 3), axis=1)
    return _dense_to(b, b.node("Relu", x), 5, [5])


@network
def a_token() -> onnx.ModelProto:
    """A row of constants in front of the others, which every sample has."""
    b = Builder(OPSET, 11)
    x = b.node("Reshape", b.node("Relu", b.dense("input", 6, 6)), _ints(b, 0, 2, 3))
    x = b.node("Pad", x, _ints(b, 0, 1, 0, 0, 0, 0), b.constant(0.7))
    return _dense_to(b, x, 9, [6])


@network
def max_pool() -> onnx.ModelProto:
    """Two by two, the activation behind the pooling."""
    b = Builder(OPSET, 12)
    x = b.node("MaxPool", b.conv("input", 1, 2), kernel_shape=[2, 2], strides=[2, 2])
    return _dense_to(b, b.node("Relu", x), 2 * 2 * 2, [1, 6, 6])


@network
def max_pool_overlapping() -> onnx.ModelProto:
    """Windows that overlap and reach past the border."""
    b = Builder(OPSET, 13)
    x = b.node("Relu", b.conv("input", 1, 2))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1)
    return _dense_to(b, x, 2 * 2 * 2, [1, 6, 6])


@network
def global_max_pool() -> onnx.ModelProto:
    """The largest of a whole image."""
    b = Builder(OPSET, 14)
    x = b.node("Flatten", b.node("GlobalMaxPool", b.node("Relu", b.conv("input", 1, 3))))
    return _dense_to(b, x, 3, [1, 4, 4])


@network
def smallest_channel() -> onnx.ModelProto:
    """ReduceMin over channels, axes as attribute."""
    b = Builder(OPSET, 15)
    x = b.node("ReduceMin", b.node("Tanh", b.conv("input", 1, 3)), axes=[1], keepdims=0)
    return _dense_to(b, x, 4, [1, 4, 4])


@network
def largest_of_three() -> onnx.ModelProto:
    """Maxout."""
    b = Builder(OPSET, 16)
    x = b.node("Max", b.dense("input", 4, 4), b.constant(0.0), b.dense("input", 4, 4), b.dense("input", 4, 4))
    return _dense_to(b, x, 4, [4])


@network
def gated() -> onnx.ModelProto:
    """Two encrypted tensors multiplied, as gated units do."""
    b = Builder(OPSET, 17)
    x = b.node("Mul", b.dense("input", 5, 4), b.node("Sigmoid", b.dense("input", 5, 4)))
    return _dense_to(b, x, 4, [5])


@network
def squeeze_and_excite() -> onnx.ModelProto:
    """A factor for each channel, computed from the image."""
    b = Builder(OPSET, 18)
    x = b.node("Relu", b.conv("input", 1, 2))
    gate = b.node("Flatten", b.node("GlobalAveragePool", x))
    gate = b.node("Reshape", b.node("Sigmoid", b.dense(gate, 2, 2)), _ints(b, 0, 2, 1, 1))
    return _dense_to(b, b.node("Mul", x, gate), 2 * 2 * 2, [1, 4, 4])


@network
def attention() -> onnx.ModelProto:
    """Scores of queries and keys, and values weighed by them."""
    b = Builder(OPSET, 19)
    q, k, v = (b.node("Reshape", b.dense("input", 6, 6), _ints(b, 0, 2, 3)) for _ in range(3))
    scores = b.node("HardSigmoid", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 1])))
    return _dense_to(b, b.node("MatMul", scores, v), 6, [6])


@network
def comparison() -> onnx.ModelProto:
    """One encrypted tensor against another."""
    b = Builder(OPSET, 20)
    x = b.node("Less", b.node("Relu", b.dense("input", 5, 4)), b.node("Relu", b.dense("input", 5, 4)))
    return _dense_to(b, b.node("Cast", x, to=1), 4, [5])


@network
def conditions() -> onnx.ModelProto:
    """And, Not and Xor of encrypted conditions."""
    b = Builder(OPSET, 21)
    x = b.node("Greater", b.dense("input", 5, 4), b.constant(0.1))
    y = b.node("Less", b.dense("input", 5, 4), b.constant(0.2))
    both = b.node("Xor", b.node("Not", b.node("And", x, y)), y)
    return _dense_to(b, b.node("Cast", both, to=1), 4, [5])


@network
def choice() -> onnx.ModelProto:
    """Where, with all three inputs encrypted."""
    b = Builder(OPSET, 22)
    where = b.node("Greater", b.dense("input", 5, 4), b.constant(0.0))
    x = b.node("Where", where, b.node("Tanh", b.dense("input", 5, 4)), b.node("Relu", b.dense("input", 5, 4)))
    return _dense_to(b, x, 4, [5])


@network
def power() -> onnx.ModelProto:
    """A function of two tensors that no combination but all pairs tells apart."""
    b = Builder(OPSET, 23)
    x = b.node("Pow", b.node("Sigmoid", b.dense("input", 5, 4)), b.node("Sigmoid", b.dense("input", 5, 4)))
    return _dense_to(b, x, 4, [5])


@network
def encrypted_slope() -> onnx.ModelProto:
    """PRelu whose slope is encrypted too."""
    b = Builder(OPSET, 24)
    x = b.node("PRelu", b.dense("input", 5, 4), b.node("Sigmoid", b.dense("input", 5, 4)))
    return _dense_to(b, x, 4, [5])


@network
def dense_block() -> onnx.ModelProto:
    """Features beside what is computed from them, with an activation on both."""
    b = Builder(OPSET, 25)
    x = b.node("Relu", b.conv("input", 1, 2, pads=[1] * 4))
    x = b.node("Concat", x, b.conv(x, 2, 2, pads=[1] * 4), axis=1)
    return _dense_to(b, b.conv(b.node("Relu", b.batch_norm(x, 4)), 4, 1), 4, [1, 4, 4])


@network
def signal() -> onnx.ModelProto:
    """One dimension: convolution and max-pooling."""
    b = Builder(OPSET, 26)
    x = b.node("Relu", b.node("Conv", "input", b.normal(3, 2, 3)))
    return _dense_to(b, b.node("MaxPool", x, kernel_shape=[2], strides=[2]), 9, [2, 8])


@network
def volume() -> onnx.ModelProto:
    """Three dimensions: convolution and max-pooling."""
    b = Builder(OPSET, 27)
    x = b.node("Relu", b.node("Conv", "input", b.normal(2, 1, 2, 2, 2)))
    return _dense_to(b, b.node("MaxPool", x, kernel_shape=[2, 2, 2]), 2, [1, 3, 3, 3])


def _index(b: object) -> str:
    """Two encrypted whole numbers from -2 to 3."""
    x = b.node("Round", b.node("Mul", b.dense("input", 6, 2), b.constant(2.0)))  # type: ignore[attr-defined]
    x = b.node("Clip", x, b.constant(-2.0), b.constant(3.0))  # type: ignore[attr-defined]
    return str(b.node("Cast", x, to=7))  # type: ignore[attr-defined]


@network
def embedding() -> onnx.ModelProto:
    """Rows of a constant by an encrypted index."""
    b = Builder(OPSET, 28)
    return _dense_to(b, b.node("Gather", b.normal(6, 4), _index(b), axis=0), 8, [6])


@network
def one_hot() -> onnx.ModelProto:
    """An encrypted index, which may count from the end."""
    b = Builder(OPSET, 29)
    x = b.node("OneHot", _index(b), b.constant(5, np.int64), b.constant([0.0, 2.0]))
    return _dense_to(b, x, 10, [6])


@network
def log_softmax() -> onnx.ModelProto:
    """Inside, not at the end where the client would do it."""
    b = Builder(OPSET, 30)
    return _dense_to(b, b.node("LogSoftmax", b.dense("input", 6, 4), axis=1), 4, [6])
