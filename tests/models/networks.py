"""Random networks for property tests: dense and convolutional layers, pooling, joins, chains and diamonds.

``networks()`` is a hypothesis strategy of models; ``STEPS`` names what a network may be built of.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from onnx_fhe.ir.opsets import target_opset

Builder = runpy.run_path(str(Path(__file__).parent / "zoo.py"))["Builder"]
OPSET = target_opset()

Draw = Callable[[Any], Any]
Shape = tuple[int, ...]
Step = Callable[[Draw, Any, str, Shape], tuple[str, Shape]]


def element_wise(draw: Draw, b: Any, x: str, shape: Shape) -> tuple[str, Shape]:
    """One to three functions in a chain, each of them a single operator or a diamond."""
    for kind in draw(st.lists(st.sampled_from(sorted(FUNCTIONS)), min_size=1, max_size=3)):
        x = FUNCTIONS[kind](b, x, shape)
    return x, shape


def per_channel(b: Any, shape: Shape) -> str:
    """A constant for every channel; for matrices also for every neuron."""
    return b.constant(b.random.uniform(0.3, 1.5, (shape[0], *[1] * (len(shape) - 1))))


FUNCTIONS: dict[str, Callable[[Any, str, Shape], str]] = {
    "relu": lambda b, x, _: b.node("Relu", x),
    "tanh": lambda b, x, _: b.node("Tanh", x),
    "erf": lambda b, x, _: b.node("Erf", x),
    "elu": lambda b, x, _: b.node("Elu", x, alpha=0.8),
    "leaky": lambda b, x, _: b.node("LeakyRelu", x, alpha=0.2),
    "hard-swish": lambda b, x, _: b.node("HardSwish", x),
    "clip": lambda b, x, _: b.node("Clip", x, b.constant(-0.6), b.constant(0.9)),
    "abs": lambda b, x, _: b.node("Abs", x),
    "swish": lambda b, x, _: b.node("Mul", x, b.node("Sigmoid", x)),
    "gelu": lambda b, x, _: b.node("Mul", x, b.node("Add", b.node("Erf", x), b.constant(1.0))),
    "cube": lambda b, x, _: b.node("Sub", x, b.node("Pow", x, b.constant(3.0))),
    "gains": lambda b, x, shape: b.node("Mul", per_channel(b, shape), x),
    "shifts": lambda b, x, shape: b.node("Sub", x, per_channel(b, shape)),
    "slopes": lambda b, x, shape: b.node("PRelu", x, per_channel(b, shape)),
    "everywhere": lambda b, x, shape: b.node("Add", x, b.normal(*shape, scale=0.3)),
}
"""Element-wise functions by name: of a builder, the name of a value and its shape without the batch."""


def linear(draw: Draw, b: Any, x: str, shape: Shape, channels: int | None = None) -> tuple[str, Shape]:
    """A dense layer of a vector, a convolution of an image."""
    if len(shape) == 1:
        units = channels or draw(st.integers(2, 6))
        if draw(st.booleans()):
            return b.dense(x, shape[0], units), (units,)
        weight = b.normal(shape[0], units, scale=shape[0] ** -0.5)
        return b.node("Add", b.node("MatMul", x, weight), b.normal(units, scale=0.2)), (units,)
    group = draw(st.sampled_from([g for g in (1, 2, 3, 4) if shape[0] % g == 0]))
    filters = channels or group * draw(st.integers(1, 2))
    if filters % group:
        group = 1
    if channels:  # shaped as it came, to be added
        return b.conv(x, shape[0], filters, group=group, pads=[1, 1, 1, 1]), (filters, *shape[1:])
    pads = draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    strides = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
    dilations = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
    size = [
        (n + pads[i] + pads[2 + i] - 2 * dilations[i] - 1) // strides[i] + 1 for i, n in enumerate(shape[1:])
    ]
    if min(size) < 1:
        return b.conv(x, shape[0], filters, group=group, pads=[1, 1, 1, 1]), (filters, *shape[1:])
    y = b.conv(x, shape[0], filters, group=group, pads=pads, strides=strides, dilations=dilations)
    return y, (filters, *size)


def join(draw: Draw, b: Any, x: str, shape: Shape) -> tuple[str, Shape]:
    """x + f(x) or x - f(x) with a layer in f, of quite another scale, with or without an activation."""
    y, _ = linear(draw, b, x, shape, channels=shape[0])
    if draw(st.booleans()):
        y, _ = element_wise(draw, b, y, shape)
    if draw(st.booleans()):
        y = b.node("Mul", y, b.constant(draw(st.sampled_from([0.1, 3.0, -7.0]))))
    op, swapped = draw(st.sampled_from(["Add", "Sub"])), draw(st.booleans())
    return b.node(op, *((y, x) if swapped else (x, y))), shape


def pool(draw: Draw, b: Any, x: str, shape: Shape) -> tuple[str, Shape]:
    """Average pooling of any form; a vector stays as it is."""
    if len(shape) == 1:
        return x, shape
    if draw(st.booleans()):
        return b.node("GlobalAveragePool", x), (shape[0], 1, 1)
    kernel = draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    kernel = [min(k, n) for k, n in zip(kernel, shape[1:], strict=True)]
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    strides = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
    ceil = draw(st.integers(0, 1))
    y = b.node(
        "AveragePool",
        x,
        kernel_shape=kernel,
        pads=pads,
        strides=strides,
        ceil_mode=ceil,
        count_include_pad=draw(st.integers(0, 1)),
    )
    info = onnx.helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, ["N", *shape])
    graph = onnx.helper.make_graph(
        [b.nodes[-1]], "one", [info], [onnx.helper.make_empty_tensor_value_info(y)]
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[opset]))
    return y, tuple(d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim)[1:]


def layout(draw: Draw, b: Any, x: str, shape: Shape) -> tuple[str, Shape]:
    """Transpose, Reshape or Flatten."""
    if len(shape) == 1:
        if shape[0] % 2 or draw(st.booleans()):
            x = b.node("Unsqueeze", x, b.constant([2, 3], np.int64))
            return x, (*shape, 1, 1)
        return b.node("Reshape", x, b.constant([0, shape[0] // 2, 2, 1], np.int64)), (shape[0] // 2, 2, 1)
    if draw(st.booleans()):
        return b.node("Flatten", x), (int(np.prod(shape)),)
    order = draw(st.permutations([0, 1, 2]))
    return b.node("Transpose", x, perm=[0, *(1 + i for i in order)]), tuple(shape[i] for i in order)


STEPS: dict[str, Step] = {
    "linear": linear,
    "element-wise": element_wise,
    "join": join,
    "pool": pool,
    "layout": layout,
}


@st.composite
def networks(draw: Draw, steps: tuple[str, ...] = tuple(STEPS), longest: int = 5) -> onnx.ModelProto:
    """A network from ``input`` to one output that begins and ends with a linear layer.

    Args:
        draw: Given by hypothesis.
        steps: What stands between, of ``STEPS``.
        longest: Most steps between.
    """
    b = Builder(OPSET, seed=draw(st.integers(0, 2**16)))
    given = draw(st.sampled_from([(5,), (1, 5, 5), (2, 4, 3), (4, 4, 4)]))
    x, shape = linear(draw, b, "input", given)
    for step in draw(st.lists(st.sampled_from(steps), min_size=1, max_size=longest)):
        x, shape = STEPS[step](draw, b, x, shape)
    if len(shape) > 1:
        x, shape = b.node("Flatten", x), (int(np.prod(shape)),)
    return b.model(b.dense(x, shape[0], 3), list(given), [3])
