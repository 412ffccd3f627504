"""Pooling and layout operators of random networks."""

from __future__ import annotations

import numpy as np

from .growing import Grower, Tensor


def pool(g: Grower, x: Tensor) -> Tensor:
    """Average pooling of any form; what is no image stays as it is."""
    if len(x.shape) != 3:
        return x
    if g.choices.chance(0.4):
        return g.apply("GlobalAveragePool", x)
    attributes = _windows(g, x, ceil_mode=g.choices.whole(0, 1))
    return g.apply("AveragePool", x, **attributes, count_include_pad=g.choices.whole(0, 1))


def max_pool(g: Grower, x: Tensor) -> Tensor:
    """Max-pooling of any form; what is no image stays as it is."""
    if len(x.shape) != 3:
        return x
    if int(np.prod(x.shape[1:])) <= 16 and g.choices.chance(0.3):
        return g.apply("GlobalMaxPool", x)
    return g.apply("MaxPool", x, **_windows(g, x, ceil_mode=g.choices.whole(0, 1)))


def reduce(g: Grower, x: Tensor) -> Tensor:
    """A sum or a mean over the last axis, of rows and images."""
    if len(x.shape) < 2:
        return x
    if g.choices.chance(0.5):
        return g.apply("ReduceMean", x, axes=[-1], keepdims=1)
    return g.apply("ReduceSum", x, g.integers(len(x.shape)), keepdims=1)


def layout(g: Grower, x: Tensor) -> Tensor:
    """Transpose, Reshape, Flatten, Unsqueeze, Slice, Gather or Pad."""
    return g.choices.pick((_shaped, _shaped, _chosen))(g, x)


def _shaped(g: Grower, x: Tensor) -> Tensor:
    if len(x.shape) == 1:
        if x.channels % 2:
            return g.apply("Unsqueeze", x, g.integers(2, 3))
        tail = g.choices.pick(((2, 1), (2,)))
        return g.apply("Reshape", x, g.integers(0, x.channels // 2, *tail))
    if g.choices.chance(0.5):
        return g.apply("Flatten", x)
    order = list(range(1, len(x.shape) + 1))
    turned = order[g.choices.whole(0, len(order) - 1) :]
    return g.apply("Transpose", x, perm=[0, *turned, *(i for i in order if i not in turned)])


def _chosen(g: Grower, x: Tensor) -> Tensor:
    axis = g.choices.whole(1, len(x.shape))
    size = x.array.shape[axis]
    kind = g.choices.pick(("Slice", "Gather", "Pad"))
    if kind == "Slice" and size > 2:
        return g.apply("Slice", x, g.integers(size - 1), g.integers(0), g.integers(axis), g.integers(-1))
    if kind == "Pad" and len(x.shape) == 3:
        return g.apply("Pad", x, g.integers(0, 0, 1, 0, 0, 0, 0, 1), g.constant(0.0))
    picked = [g.choices.whole(0, size - 1) for _ in range(max(2, size - 1))]
    return g.apply("Gather", x, g.integers(*picked), axis=axis)


def _windows(g: Grower, x: Tensor, ceil_mode: int) -> dict[str, object]:
    kernel = [min(g.choices.whole(1, 3), n) for n in x.shape[1:]]
    pads = [g.choices.whole(0, k - 1) for k in (*kernel, *kernel)]
    strides = [g.choices.whole(1, 2) for _ in kernel]
    return {"kernel_shape": kernel, "pads": pads, "strides": strides, "ceil_mode": ceil_mode}
