"""Element-wise functions of random networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .growing import Grower, Tensor, channel_constant


def element_wise(g: Grower, x: Tensor) -> Tensor:
    """One to three functions in a chain, each of them a single operator or a diamond."""
    for _ in range(g.choices.whole(1, 3)):
        x = FUNCTIONS[g.choices.pick(sorted(FUNCTIONS))](g, x)
    return x


def activation(g: Grower, x: Tensor) -> Tensor:
    """One of the functions that networks are mostly made with."""
    return FUNCTIONS[g.choices.pick(("relu", "relu", "relu", "tanh", "leaky", "swish", "clip"))](g, x)


def _per_channel(g: Grower, x: Tensor) -> str:
    return channel_constant(g, x, g.random.uniform(0.3, 1.5, x.channels))


FUNCTIONS: dict[str, Callable[[Grower, Tensor], Tensor]] = {
    "relu": lambda g, x: g.apply("Relu", x),
    "tanh": lambda g, x: g.apply("Tanh", x),
    "sigmoid": lambda g, x: g.apply("Sigmoid", x),
    "softplus": lambda g, x: g.apply("Softplus", x),
    "erf": lambda g, x: g.apply("Erf", x),
    "elu": lambda g, x: g.apply("Elu", x, alpha=0.8),
    "leaky": lambda g, x: g.apply("LeakyRelu", x, alpha=0.2),
    "hard-swish": lambda g, x: g.apply("HardSwish", x),
    "clip": lambda g, x: g.apply("Clip", x, g.constant(-0.6), g.constant(0.9)),
    "abs": lambda g, x: g.apply("Abs", x),
    "swish": lambda g, x: g.apply("Mul", x, g.apply("Sigmoid", x)),
    "gelu": lambda g, x: g.apply("Mul", x, g.apply("Add", g.apply("Erf", x), g.constant(1.0))),
    "cube": lambda g, x: g.apply("Sub", x, g.apply("Pow", x, g.constant(3.0))),
    "gains": lambda g, x: g.apply("Mul", _per_channel(g, x), x),
    "shifts": lambda g, x: g.apply("Sub", x, _per_channel(g, x)),
    "slopes": lambda g, x: g.apply("PRelu", x, _per_channel(g, x)),
    "everywhere": lambda g, x: g.apply("Add", x, g.normal(*x.shape, scale=0.3)),
    "threshold": lambda g, x: g.apply("Cast", g.apply("Greater", x, g.constant(_middle(x))), to=1),
}
"""Functions by name: of a network and one of its tensors."""


def _middle(x: Tensor) -> float:
    return float(np.median(x.array))
