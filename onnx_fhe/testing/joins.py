"""Where random networks branch and meet: residuals, Concat, Split, products."""

from __future__ import annotations

import numpy as np

from .functions import activation, element_wise
from .growing import Grower, Tensor
from .layers import linear


def residual(g: Grower, x: Tensor) -> Tensor:
    """X + f(x) or x - f(x) with a layer in f, of quite another scale, with or without an activation."""
    y = linear(g, x, channels=x.channels)
    if g.choices.chance(0.5):
        y = element_wise(g, y)
    if g.choices.chance(0.5):
        y = g.apply("Mul", y, g.constant(g.choices.pick((0.1, 3.0, -7.0))))
    operands = (x, y) if g.choices.chance(0.5) else (y, x)
    return g.apply(g.choices.pick(("Add", "Sub")), *operands)


def concatenation(g: Grower, x: Tensor) -> Tensor:
    """Two branches side by side, one of which may be ``x`` itself."""
    y = activation(g, linear(g, x, channels=x.channels))
    if g.choices.chance(0.5):
        y = g.apply("Mul", y, g.constant(g.choices.pick((0.05, 4.0))))
    other = x if g.choices.chance(0.5) else activation(g, x)
    return g.apply("Concat", other, y, axis=1)


def parts(g: Grower, x: Tensor) -> Tensor:
    """Split along the channels, one part changed, and put together the other way round."""
    if x.channels < 2:
        return x
    first = g.choices.whole(1, x.channels - 1)
    a, b = g.apply_many("Split", x, g.integers(first, x.channels - first), outputs=2, axis=1)
    return g.apply("Concat", activation(g, b), a, axis=1)


def product(g: Grower, x: Tensor) -> Tensor:
    """Two encrypted tensors multiplied: a gate, as in gated units."""
    gate = g.apply(g.choices.pick(("Sigmoid", "Tanh", "HardSigmoid")), linear(g, x, channels=x.channels))
    return g.apply("Mul", linear(g, x, channels=x.channels) if g.choices.chance(0.5) else x, gate)


def attention(g: Grower, x: Tensor) -> Tensor:
    """A matrix for each sample times its own transpose, of any rank-2 tensor with few rows."""
    if len(x.shape) != 2 or int(np.prod(x.shape)) > 16:
        return x
    q, k = linear(g, x, channels=x.channels), linear(g, x, channels=x.channels)
    scores = g.apply("HardSigmoid", g.apply("MatMul", q, g.apply("Transpose", k, perm=[0, 2, 1])))
    return g.apply("MatMul", scores, x)


def extreme(g: Grower, x: Tensor) -> Tensor:
    """The larger, or the smaller, of two branches."""
    y = linear(g, x, channels=x.channels)
    return g.apply(g.choices.pick(("Max", "Min")), linear(g, x, channels=x.channels), y)
