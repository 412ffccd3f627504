"""A convolution with average pooling behind it, as one convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear, linear_of
from ....ir.integer_editing import IntegerEditor
from .moves import sample_shape


@dataclass(frozen=True)
class Average:
    """A convolution and the pooling that alone reads it.

    Attributes:
        linear: The convolution.
        pool: The pooling.
        kernel, strides: Kernel and strides of the pooling.
    """

    linear: Linear
    pool: ir.Node
    kernel: tuple[int, ...]
    strides: tuple[int, ...]

    def weight(self) -> np.ndarray:
        """The mean of the convolution's kernel over all its positions in a window."""
        first = self.linear.weight.astype(np.float64)
        reach = self.own_strides
        spread = [(k - 1) * s for k, s in zip(self.kernel, reach, strict=True)]
        total = np.zeros((*first.shape[:2], *(a + b for a, b in zip(first.shape[2:], spread, strict=True))))
        for place in np.ndindex(*self.kernel):
            window = tuple(
                slice(p * s, p * s + size) for p, s, size in zip(place, reach, first.shape[2:], strict=True)
            )
            place_in_total = (slice(None), slice(None), *window)
            total[place_in_total] += first
        return np.asarray(total / math.prod(self.kernel))

    @property
    def own_strides(self) -> list[int]:
        """Strides of the convolution."""
        return list(self.linear.node.attributes.get_ints("strides", [1] * len(self.kernel)))


def find_average(pool: ir.Node, growth: float) -> Average | None:
    """The pair that a pooling ends; None where it does not compose or weights grow past ``growth``."""
    x = pool.inputs[0] if pool.domain == "" and pool.op_type in {"AveragePool", "GlobalAveragePool"} else None
    producer = x.producer() if x is not None else None
    linear = linear_of(producer) if producer is not None and producer.op_type == "Conv" else None
    shape = sample_shape(x)
    if linear is None or x is None or shape is None or len(x.uses()) != 1 or x.is_graph_output():
        return None
    get = pool.attributes.get_ints
    if pool.op_type == "GlobalAveragePool":
        kernel = tuple(shape[1:])
        strides = (1,) * len(kernel)
    else:
        kernel = tuple(get("kernel_shape", []))
        strides = tuple(get("strides", [1] * len(kernel)))
        padding = pool.attributes.get_string("auto_pad", "NOTSET")
        rounds_up: int = pool.attributes.get_int("ceil_mode", 0)
        if any(get("pads", [])) or padding not in {"NOTSET", "VALID"} or rounds_up:
            return None
        if any(d != 1 for d in get("dilations", [])):
            return None
    if any(d != 1 for d in linear.node.attributes.get_ints("dilations", [])):
        return None
    found = Average(linear, pool, kernel, strides)
    return found if found.weight().size <= growth * linear.weight.size else None


def replace_average(found: Average, edit: IntegerEditor) -> None:
    """Put the one convolution in the place of the pooling; the other one is left without readers."""
    conv = found.linear.node
    weight = found.weight()
    dims = len(found.kernel)
    strides = [a * b for a, b in zip(found.own_strides, found.strides, strict=True)]
    attributes = {
        "dilations": [1] * dims,
        "group": found.linear.groups,
        "kernel_shape": list(weight.shape[2:]),
        "pads": list(conv.attributes.get_ints("pads", [0] * (2 * dims))),
        "strides": strides,
    }
    inputs = [conv.inputs[0], edit.constant(f"{conv.name}_averaged", weight), *conv.inputs[2:]]
    edit.substitute(found.pool, "Conv", inputs, attributes)
