"""Small networks that together hold every structure that the usual passes take.

Each function returns an ``onnx.ModelProto`` with fixed random weights, built node by node as exporters write
it, in opsets 11 to 17. ``NETWORKS`` has them by name and ``samples`` makes inputs. To look at them as files:

    python -m onnx_fhe.testing.zoo FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_fhe.testing.builder import Builder

NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {}


def network(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """List a network in ``NETWORKS``."""
    NETWORKS[make.__name__] = make
    return make


def samples(model: onnx.ModelProto, count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name: float32, uniform in -1..1, ``count`` samples on axis 0."""
    random = np.random.default_rng(seed)
    weights = {w.name for w in model.graph.initializer}
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim][1:]
        for i in model.graph.input
        if i.name not in weights
    }
    return {k: random.uniform(-1, 1, (count, *shape)).astype(np.float32) for k, shape in shapes.items()}


@network
def mlp() -> onnx.ModelProto:
    """Dense layers as PyTorch exports them."""
    b = Builder(13, seed=1)
    x = b.node("Relu", b.dense("input", 6, 8))
    x = b.node("Relu", b.dense(x, 8, 5))
    return b.model(b.dense(x, 5, 3), [6], [3])


@network
def mlp_matmul() -> onnx.ModelProto:
    """Dense layers as MatMul and Add, and a Gemm that scales and does not transpose."""
    b = Builder(15, seed=2)
    x = b.node("MatMul", "input", b.normal(6, 8, scale=0.4))
    x = b.node("Relu", b.node("Add", x, b.normal(8, scale=0.2)))
    x = b.node("Gemm", x, b.normal(8, 4, scale=0.4), b.normal(4, scale=0.2), alpha=0.5, beta=2.0)
    x = b.node("Relu", x)
    # The bias on the left.
    x = b.node("Add", b.normal(3, scale=0.2), b.node("MatMul", x, b.normal(4, 3)))
    return b.model(x, [6], [3])


@network
def mlp_static_batch() -> onnx.ModelProto:
    """Exported for one sample at a time."""
    b = Builder(13, seed=3)
    x = b.node("Relu", b.dense("input", 5, 6))
    return b.model(b.dense(x, 6, 2), [5], [2], batch=1)


@network
def mlp_training_leftovers() -> onnx.ModelProto:
    """Identity, Dropout and Constant nodes, and a part that nothing uses."""
    b = Builder(14, seed=4)
    x = b.node("Dropout", b.node("Relu", b.dense("input", 6, 8)))
    half = b.node("Constant", value=numpy_helper.from_array(np.asarray(0.5, np.float32)))
    b.node("Tanh", b.dense(x, 8, 2))
    x = b.node("Identity", b.node("Mul", x, half))
    return b.model(b.dense(x, 8, 3), [6], [3])


@network
def mlp_opset11() -> onnx.ModelProto:
    """An old file: Softmax over all axes from the first one on, axes as attributes."""
    b = Builder(11, seed=5)
    x = b.node("Unsqueeze", b.dense("input", 6, 8), axes=[2])
    x = b.node("Clip", x, b.constant(0.0), b.constant(1.5))
    x = b.dense(b.node("Squeeze", x, axes=[2]), 8, 3)
    return b.model(b.node("Softmax", x, axis=1), [6], [3])


@network
def cnn() -> onnx.ModelProto:
    """Padding, then strides."""
    b = Builder(13, seed=6)
    x = b.node("Relu", b.conv("input", 1, 3, pads=[1, 1, 1, 1]))
    x = b.node("Relu", b.conv(x, 3, 4, strides=[2, 2]))
    return b.model(b.dense(b.node("Flatten", x), 4 * 2 * 2, 3), [1, 6, 6], [3])


@network
def cnn_uneven() -> onnx.ModelProto:
    """Each side and axis with its own padding, stride and dilation."""
    b = Builder(16, seed=7)
    x = b.conv("input", 2, 3, pads=[0, 1, 2, 0], strides=[2, 1], dilations=[1, 2])
    x = b.node("Flatten", b.node("Relu", x))
    return b.model(b.dense(x, 3 * 3 * 3, 2), [2, 6, 6], [2])


@network
def cnn_auto_pad() -> onnx.ModelProto:
    """As TensorFlow's exporter writes it."""
    b = Builder(13, seed=8)
    x = b.node("Relu", b.conv("input", 1, 3, auto_pad="SAME_UPPER", strides=[2, 2]))
    return b.model(b.dense(b.node("Flatten", x), 3 * 3 * 3, 2), [1, 5, 5], [2])


@network
def cnn_groups() -> onnx.ModelProto:
    """A grouped convolution, a depthwise one and a pointwise one."""
    b = Builder(14, seed=9)
    x = b.node("Relu", b.conv("input", 4, 6, group=2))
    x = b.node("Relu", b.conv(x, 6, 6, group=6, pads=[1, 1, 1, 1]))
    x = b.node("Relu", b.conv(x, 6, 2, kernel=1))
    return b.model(b.dense(b.node("Flatten", x), 2 * 3 * 3, 3), [4, 5, 5], [3])


@network
def batch_norm_cnn() -> onnx.ModelProto:
    """Batch norm behind a convolution without bias and behind a dense layer."""
    b = Builder(15, seed=10)
    x = b.node("Relu", b.batch_norm(b.conv("input", 1, 3, bias=False), 3))
    x = b.dense(b.node("Flatten", x), 3 * 3 * 3, 6)
    x = b.node("Relu", b.batch_norm(x, 6))
    return b.model(b.dense(x, 6, 3), [1, 5, 5], [3])


@network
def batch_norm_first() -> onnx.ModelProto:
    """Batch norm on the input, in front of a padded convolution: it cannot be folded into the weights."""
    b = Builder(13, seed=11)
    x = b.conv(b.batch_norm("input", 2), 2, 3, pads=[1, 1, 1, 1])
    x = b.node("Flatten", b.node("Relu", x))
    return b.model(b.dense(x, 3 * 4 * 4, 2), [2, 4, 4], [2])


@network
def average_pool() -> onnx.ModelProto:
    """A window that is a part of the image."""
    b = Builder(13, seed=12)
    x = b.node("Relu", b.conv("input", 1, 3))
    x = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.dense(b.node("Flatten", x), 3 * 2 * 2, 3), [1, 6, 6], [3])


@network
def global_average_pool() -> onnx.ModelProto:
    """A fully convolutional classifier's head."""
    b = Builder(17, seed=13)
    x = b.node("Relu", b.conv("input", 1, 4, pads=[1, 1, 1, 1]))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model(b.dense(x, 4, 3), [1, 4, 4], [3])


@network
def residual_add() -> onnx.ModelProto:
    """Two encrypted tensors of very different scales meet."""
    b = Builder(13, seed=14)
    x = b.node("Relu", b.dense("input", 6, 6))
    y = b.node("Mul", b.node("Relu", b.dense(x, 6, 6)), b.constant(8.0))
    x = b.node("Relu", b.node("Add", x, y))
    return b.model(b.dense(x, 6, 3), [6], [3])


@network
def residual_sub() -> onnx.ModelProto:
    """A difference of two branches, with an activation that goes below zero."""
    b = Builder(14, seed=15)
    x = b.node("Tanh", b.dense("input", 6, 6))
    y = b.node("Relu", b.dense(x, 6, 6))
    x = b.node("LeakyRelu", b.node("Sub", x, y), alpha=0.1)
    return b.model(b.dense(x, 6, 3), [6], [3])


@network
def residual_cnn() -> onnx.ModelProto:
    """A block of a residual network: convolution, batch norm, shortcut."""
    b = Builder(13, seed=16)
    x = b.node("Relu", b.conv("input", 1, 3, pads=[1, 1, 1, 1]))
    y = b.node("Relu", b.batch_norm(b.conv(x, 3, 3, bias=False, pads=[1, 1, 1, 1]), 3))
    y = b.batch_norm(b.conv(y, 3, 3, bias=False, pads=[1, 1, 1, 1]), 3)
    x = b.node("Relu", b.node("Add", x, y))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model(b.dense(x, 3, 2), [1, 4, 4], [2])


@network
def swish() -> onnx.ModelProto:
    """A diamond, x * sigmoid(x), as exporters write SiLU."""
    b = Builder(13, seed=17)
    x = b.dense("input", 6, 8)
    x = b.node("Mul", x, b.node("Sigmoid", x))
    return b.model(b.dense(x, 8, 3), [6], [3])


@network
def activation_chain() -> onnx.ModelProto:
    """Many element-wise operators between two layers, one with a constant for each neuron."""
    b = Builder(16, seed=18)
    x = b.node("Elu", b.dense("input", 6, 8), alpha=0.7)
    x = b.node("Add", b.node("Mul", x, b.normal(8)), b.constant(0.25))
    x = b.node("Clip", b.node("Tanh", x), b.constant(-0.5), b.constant(0.75))
    x = b.node("Abs", b.node("Pow", x, b.constant(3.0)))
    return b.model(b.dense(x, 8, 3), [6], [3])


@network
def layouts() -> onnx.ModelProto:
    """Transpose, Reshape and Flatten on encrypted values."""
    b = Builder(13, seed=19)
    x = b.node("Relu", b.conv("input", 1, 2))
    x = b.node("Transpose", x, perm=[0, 2, 3, 1])
    x = b.node("Reshape", x, b.constant([0, -1], np.int64))
    x = b.node("Relu", b.dense(x, 2 * 3 * 3, 6))
    x = b.node("Flatten", b.node("Reshape", x, b.constant([-1, 2, 3], np.int64)))
    return b.model(b.dense(x, 6, 3), [1, 5, 5], [3])


@network
def two_inputs() -> onnx.ModelProto:
    """Two encrypted inputs, each with a layer of its own."""
    b = Builder(13, seed=20)
    x = b.node("Add", b.dense("left", 4, 5), b.dense("right", 4, 5))
    return b.model(b.dense(b.node("Relu", x), 5, 2), [4], [2], inputs=("left", "right"))


@network
def softmax_end() -> onnx.ModelProto:
    """What the client does behind the last layer: Softmax."""
    b = Builder(13, seed=21)
    x = b.dense(b.node("Relu", b.dense("input", 6, 8)), 8, 3)
    return b.model(b.node("Softmax", x, axis=-1), [6], [3])


@network
def argmax_end() -> onnx.ModelProto:
    """What the client does behind the last layer: ArgMax, an integer."""
    b = Builder(13, seed=22)
    x = b.dense(b.node("Relu", b.dense("input", 6, 8)), 8, 3)
    return b.model(b.node("ArgMax", x, axis=1, keepdims=0), [6], [], dtype=TensorProto.INT64)


@network
def sigmoid_end() -> onnx.ModelProto:
    """What the client does behind the last layer: a probability."""
    b = Builder(17, seed=23)
    x = b.dense(b.node("Relu", b.dense("input", 6, 8)), 8, 1)
    return b.model(b.node("Sigmoid", x), [6], [1])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, make in NETWORKS.items():
        onnx.save(make(), folder / f"{name}.onnx")
