"""Random networks: a model and data for it, all of it a function of one whole number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ..ir.batch_runner import Arrays
from ..ir.errors import ModelError
from .choices import Choices, Seeded
from .features import features, with_stray_cell
from .forms import layout, max_pool, pool, reduce
from .functions import activation, element_wise
from .growing import Grower, Tensor, spread_of
from .joins import attention, concatenation, extreme, parts, product, residual
from .layers import batch_norm, chain, linear

Step = Callable[[Grower, Tensor], Tensor]

STEPS: dict[str, Step] = {
    "linear": linear,
    "layer": lambda g, x: activation(g, linear(g, x)),
    "element-wise": element_wise,
    "join": residual,
    "concat": concatenation,
    "split": parts,
    "product": product,
    "attention": attention,
    "extreme": extreme,
    "pool": pool,
    "max-pool": max_pool,
    "reduce": reduce,
    "batch-norm": batch_norm,
    "chain": chain,
    "layout": layout,
}
"""What a network may be built of, by name."""
MANY = ("layer", "layer", "layer", "join", "pool", "layout", *STEPS)
"""Steps to draw from, the usual ones more often."""
SHAPES = ((3,), (5,), (8,), (1, 5, 5), (2, 4, 3), (4, 4, 4), (3, 4))
"""Of one sample: features, images, rows."""
MAX_ELEMENTS = 96
"""Elements of a tensor that no step goes past."""
HELD_BACK_SAMPLES = 300
"""Samples that the network is tested on."""


@dataclass(frozen=True)
class Network:
    """A random network.

    Attributes:
        seed: What it was made of.
        steps: What it consists of, for people to read.
        model: The model, float.
        calibration: Inputs by name, samples on axis 0; one cell of them may be stray.
        test: Inputs that calibration has not seen, from the same distribution.
    """

    seed: int
    steps: tuple[str, ...]
    model: onnx.ModelProto
    calibration: Arrays
    test: Arrays


def random_network(seed: int, longest: int = 4, steps: Sequence[str] = MANY) -> Network:
    """The network of that number.

    It has one to three inputs, of which some features may be of wild scales, constant or mostly zero, one to
    three outputs, and weights as training leaves them: activations have about unit variance, now and then a
    channel is dead.

    Args:
        seed: A whole number from 0.
        longest: Most steps between the first layer and the last.
        steps: Names of ``STEPS`` to draw from; a name that comes twice is drawn twice as often.
    """
    choices = Seeded(seed)
    g = Grower(choices, choices.whole(0, 2**31), opset=choices.pick((13, 17)) if choices.chance(0.5) else 17)
    calibrating = choices.pick((100, 150, 250))
    awkward = choices.chance(0.5)
    given: list[Tensor] = []
    for i in range(choices.pick((1, 1, 1, 1, 2, 3))):
        shape = choices.pick(SHAPES)
        array = features(choices, g.random, shape, calibrating + HELD_BACK_SAMPLES, awkward)
        given.append(Tensor(f"input{i}" if i else "input", array))
    told: list[str] = ["awkward"] if awkward else []
    x = _together(g, [_stem(g, t, told) for t in given])
    heads: list[Tensor] = []
    for _ in range(choices.whole(1, longest)):
        x = _step(g, x, choices.pick(steps), told)
        if choices.chance(0.08) and len(heads) < 2:
            heads.append(_head(g, x, told))
    heads.append(_head(g, x, told))
    model = g.models({t.name: _type(t) for t in given}, {t.name: _type(t) for t in heads})
    stray = choices.chance(0.1)
    told += ["stray cell"] if stray else []
    calibration = {t.name: t.array[:calibrating] for t in given}
    if stray:
        calibration = {k: with_stray_cell(choices, v) for k, v in calibration.items()}
    return Network(seed, tuple(told), model, calibration, {t.name: t.array[calibrating:] for t in given})


def grown(choices: Choices, steps: Sequence[str], longest: int) -> onnx.ModelProto:
    """A network from ``input`` to one output of three numbers; no feature is wild and no channel is dead.

    Args:
        choices: Makes the decisions; where it is hypothesis, failures shrink.
        steps: Names of ``STEPS`` to draw from.
        longest: Most steps between the first layer and the last.
    """
    g = Grower(choices, choices.whole(0, 2**16), spoiled=0.0)
    shape = choices.pick([s for s in SHAPES if len(s) != 2])
    x = given = Tensor("input", features(choices, g.random, shape, 64, awkward=False))
    told: list[str] = []
    x = _step(g, x, "linear", told)
    for _ in range(choices.whole(1, longest)):
        x = _step(g, x, choices.pick(steps), told)
    x = g.apply("Flatten", x) if len(x.shape) > 1 else x
    x = g.layer("Gemm", x, g.random.normal(0, 1, (3, x.channels)), g.random.normal(0, 0.2, 3), transB=1)
    return g.models({given.name: _type(given)}, {x.name: _type(x)})


def _step(g: Grower, x: Tensor, name: str, told: list[str]) -> Tensor:
    """The step, unless what it makes is too large, or no number: then it is taken back."""
    nodes, weights = len(g.nodes), len(g.weights)
    try:
        y = STEPS[name](g, x)
    except ModelError:
        # onnxruntime refuses some windows that padding fills; nobody would export them.
        y = None
    if y is None or y.array[0].size > MAX_ELEMENTS or not np.abs(y.array).max(initial=0) < 1e3:
        del g.nodes[nodes:], g.weights[weights:]
        return x
    if y is not x:
        told.append(name)
    return y


def _stem(g: Grower, x: Tensor, told: list[str]) -> Tensor:
    """The first layer of an input, with or without the standardisation spelled out."""
    axes = (0, *range(2, x.array.ndim))
    mean, spread = x.array.mean(axis=axes, dtype=np.float64), spread_of(x)
    shaped = [g.constant(a.reshape(-1, *[1] * (x.array.ndim - 2))) for a in (mean, spread)]
    kind = g.choices.pick(("folded", "folded", "Sub and Div", "batch norm"))
    if kind == "Sub and Div":
        x = g.apply("Div", g.apply("Sub", x, shaped[0]), shaped[1])
    elif kind == "batch norm":
        x = batch_norm(g, x)
    told.append(kind)
    return _step(g, x, "layer", told)


def _together(g: Grower, tensors: list[Tensor]) -> Tensor:
    """One tensor of all: side by side, or by Add or Mul of as many neurons."""
    if len(tensors) == 1:
        return tensors[0]
    flat = [g.apply("Flatten", t) if len(t.shape) > 1 else t for t in tensors]
    kind = g.choices.pick(("Concat", "Add", "Mul"))
    if kind == "Concat":
        return g.apply("Concat", *flat, axis=1)
    equal = [linear(g, t, channels=4) for t in flat]
    x = equal[0]
    for other in equal[1:]:
        x = g.apply(kind, x, other)
    return x


def _head(g: Grower, x: Tensor, told: list[str]) -> Tensor:
    """An output: mostly a dense layer, else the tensor as it is; some end in what the client computes."""
    if g.choices.chance(0.85):
        x = g.apply("Flatten", x) if len(x.shape) > 1 else x
        x = linear(g, x, channels=g.choices.whole(1, 5))
    elif x.name.startswith("input"):
        x = linear(g, x)
    tail = g.choices.pick(("", "", "", "Softmax", "Sigmoid", "ArgMax"))
    if tail == "Softmax" and x.channels > 1:
        x = g.apply("Softmax", x, axis=1)
    elif tail == "Sigmoid":
        x = g.apply("Sigmoid", x)
    elif tail == "ArgMax" and x.channels > 1:
        x = g.apply("ArgMax", x, axis=1, keepdims=0)
    told.append(f"output {'x'.join(map(str, x.shape))} {tail}".strip())
    return x


def _type(t: Tensor) -> tuple[int, tuple[int, ...]]:
    return int(helper.np_dtype_to_tensor_dtype(t.array.dtype)), t.shape
