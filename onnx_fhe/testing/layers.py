"""Linear layers of random networks, with the channels that training leaves behind: dead, repeated, tiny."""

from __future__ import annotations

import numpy as np

from .growing import Grower, Tensor, spread_of


def linear(g: Grower, x: Tensor, channels: int | None = None) -> Tensor:
    """A dense layer of a vector, a MatMul of rows, a convolution of an image.

    Args:
        g: The network.
        x: Any tensor of rank 2 to 4.
        channels: How many the result has, which then has the shape of ``x`` otherwise; by default all is
            drawn.
    """
    if len(x.shape) == 1:
        return dense(g, x, channels or g.choices.whole(2, 6))
    if len(x.shape) == 2:
        return rows(g, x, x.shape[-1] if channels else g.choices.whole(2, 5))
    return convolution(g, x, channels)


def dense(g: Grower, x: Tensor, units: int) -> Tensor:
    """Gemm, or MatMul and Add."""
    weight = _spoiled(g, _normal(g, (units, x.channels), x))
    bias = _bias(g, units)
    if g.choices.chance(0.5):
        return g.layer("Gemm", x, weight, bias, transB=1)
    return g.layer("MatMul", x, weight.T, bias)


def rows(g: Grower, x: Tensor, units: int) -> Tensor:
    """MatMul of a matrix for each sample, with or without Add."""
    weight = g.random.normal(0, x.shape[-1] ** -0.5, (x.shape[-1], units))
    return g.layer("MatMul", x, weight, _bias(g, units) if g.choices.chance(0.7) else None)


def convolution(g: Grower, x: Tensor, channels: int | None = None) -> Tensor:
    """A convolution with any pads, strides, dilations and groups; as large as ``x`` if channels are given."""
    count = x.channels
    group = g.choices.pick([n for n in (1, 2, 3, 4) if count % n == 0])
    filters = channels or group * g.choices.whole(1, 2)
    group = 1 if filters % group else group
    kernel = (
        [g.choices.pick((1, 2, 3)) for _ in x.shape[1:]] if channels is None else [3] * (len(x.shape) - 1)
    )
    pads, strides, dilations = [1] * 2 * len(kernel), [1] * len(kernel), [1] * len(kernel)
    if channels is None:
        pads = [g.choices.whole(0, k - 1) for k in (*kernel, *kernel)]
        strides = [g.choices.whole(1, 2) for _ in kernel]
        dilations = [g.choices.whole(1, 2) for _ in kernel]
        places = zip(x.shape[1:], kernel, pads, pads[len(kernel) :], dilations, strict=False)
        if any(n + before + after < d * (k - 1) + 1 for n, k, before, after, d in places):
            kernel, pads = [1] * len(kernel), [0] * len(pads)
    shape = (filters, count // group, *kernel)
    weight = _spoiled(g, _normal(g, shape, x if group == 1 else None))
    attributes: dict[str, object] = {"kernel_shape": kernel, "pads": pads, "strides": strides}
    attributes |= {"dilations": dilations, "group": group}
    return g.layer("Conv", x, weight, _bias(g, filters) if g.choices.chance(0.8) else None, **attributes)


def batch_norm(g: Grower, x: Tensor) -> Tensor:
    """BatchNormalization with the statistics of what it reads."""
    axes = (0, *range(2, x.array.ndim))
    scale = g.constant(g.random.uniform(0.5, 1.5, x.channels))
    shift, mean = g.normal(x.channels, scale=0.3), g.constant(x.array.mean(axis=axes))
    return g.apply(
        "BatchNormalization", x, scale, shift, mean, g.constant(x.array.var(axis=axes)), epsilon=1e-5
    )


def chain(g: Grower, x: Tensor) -> Tensor:
    """Two linear layers with nothing between."""
    return linear(g, linear(g, x))


def _normal(g: Grower, shape: tuple[int, ...], x: Tensor | None) -> np.ndarray:
    """Weights of He's scale; a feature of wild scale meets weights as small as it is large."""
    weight = g.random.normal(0, np.prod(shape[1:]) ** -0.5, shape)
    if x is None or not x.name.startswith("input"):
        return weight
    return np.asarray(weight / spread_of(x).reshape(-1, *[1] * (len(shape) - 2)))


def _bias(g: Grower, channels: int) -> np.ndarray:
    return np.asarray(g.random.normal(0, 0.4, channels))


def _spoiled(g: Grower, weight: np.ndarray) -> np.ndarray:
    """The weights, now and then some of them as training leaves them."""
    if not g.choices.chance(g.spoiled):
        return weight
    kind = g.choices.pick(("dead output", "dead input", "repeated", "tiny", "sparse"))
    row, column = g.choices.whole(0, len(weight) - 1), g.choices.whole(0, weight.shape[1] - 1)
    if kind == "dead output":
        weight[row] = 0
    elif kind == "dead input":
        weight[:, column] = 0
    elif kind == "repeated":
        weight[row] = weight[0]
    elif kind == "tiny":
        weight[row] *= 1e-3
    else:
        weight[g.random.random(weight.shape) < 0.5] = 0
    return weight
