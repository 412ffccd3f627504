"""Differentiable forms of the float operators, in torch.

onnxruntime cannot differentiate, so training needs these; the student as a whole is compared with onnxruntime
before it is trained, so a wrong one cannot go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional as f

from ...compress.remove_neurons.adapt import slice_of
from .quantizers import straight_through

Tensors = Sequence[torch.Tensor | None]
Operator = Callable[[ir.Node, Tensors], torch.Tensor]


def _ints(node: ir.Node, name: str, default: Sequence[int] = ()) -> list[int]:
    return list(node.attributes.get_ints(name, default) or default)


def _float(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _int(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes.get_int(name, default))


def _axes(node: ir.Node, x: Tensors, position: int = 1) -> list[int]:
    given = x[position] if len(x) > position else None
    if given is not None:
        return [int(a) for a in given.reshape(-1).tolist()]
    return _ints(node, "axes")


def _first(x: Tensors) -> torch.Tensor:
    assert x[0] is not None
    return x[0]


def _pair(x: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    assert x[0] is not None
    assert x[1] is not None
    return x[0], x[1]


def _gemm(node: ir.Node, x: Tensors) -> torch.Tensor:
    a, b = _pair(x)
    a = a.T if _int(node, "transA", 0) else a
    b = b if _int(node, "transB", 0) else b.T
    result = f.linear(a, b) * _float(node, "alpha", 1.0)
    return result if len(x) < 3 or x[2] is None else result + x[2] * _float(node, "beta", 1.0)


def _padded(node: ir.Node, data: torch.Tensor, value: float = 0.0) -> torch.Tensor:
    pads = _ints(node, "pads", [0] * 2 * (data.ndim - 2))
    rank = len(pads) // 2
    # torch counts from the last axis on, begin and end together.
    flat = [p for i in reversed(range(rank)) for p in (pads[i], pads[i + rank])]
    return f.pad(data, flat, value=value) if any(flat) else data


def _conv(node: ir.Node, x: Tensors) -> torch.Tensor:
    data, weight = _pair(x)
    rank = data.ndim - 2
    kind = {1: f.conv1d, 2: f.conv2d, 3: f.conv3d}[rank]
    return kind(
        _padded(node, data),
        weight,
        x[2] if len(x) > 2 else None,
        stride=_ints(node, "strides", [1] * rank),
        dilation=_ints(node, "dilations", [1] * rank),
        groups=_int(node, "group", 1),
    )


def _average_pool(node: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    if _int(node, "ceil_mode", 0) or any(d != 1 for d in _ints(node, "dilations", [1])):
        raise NotImplementedError
    kernel = _ints(node, "kernel_shape")
    strides = _ints(node, "strides", [1] * len(kernel))
    kind = {1: f.avg_pool1d, 2: f.avg_pool2d, 3: f.avg_pool3d}[len(kernel)]
    total = kind(_padded(node, data), kernel, strides)
    if _int(node, "count_include_pad", 0) or not any(_ints(node, "pads")):
        return total
    share = kind(_padded(node, torch.ones_like(data[:1])), kernel, strides)
    return total / share


def _max_pool(node: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    if _int(node, "ceil_mode", 0):
        raise NotImplementedError
    kernel = _ints(node, "kernel_shape")
    ones = [1] * len(kernel)
    kind = {1: f.max_pool1d, 2: f.max_pool2d, 3: f.max_pool3d}[len(kernel)]
    padded = _padded(node, data, float("-inf"))
    result: torch.Tensor = kind(
        padded, kernel, _ints(node, "strides", ones), dilation=_ints(node, "dilations", ones)
    )
    return result


def _reshape(node: ir.Node, x: Tensors) -> torch.Tensor:
    data, shape = _pair(x)
    sizes = [int(s) for s in shape.tolist()]
    if not _int(node, "allowzero", 0):
        sizes = [data.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    return data.reshape(sizes)


def _reduce(how: Callable[..., torch.Tensor]) -> Operator:
    def run(node: ir.Node, x: Tensors) -> torch.Tensor:
        axes = _axes(node, x) or list(range(_first(x).ndim))
        return how(_first(x), dim=axes, keepdim=bool(_int(node, "keepdims", 1)))

    return run


def _unsqueeze(node: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    axes = _axes(node, x)
    for axis in sorted(a % (data.ndim + len(axes)) for a in axes):
        data = data.unsqueeze(axis)
    return data


def _squeeze(node: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    axes = _axes(node, x) or [i for i, d in enumerate(data.shape) if d == 1]
    for axis in sorted((a % data.ndim for a in axes), reverse=True):
        data = data.squeeze(axis)
    return data


def _slice(node: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    starts, ends = ([int(v) for v in t.tolist()] for t in x[1:3] if t is not None)
    axes = _axes(node, x, 3) or list(range(len(starts)))
    steps = [int(v) for v in x[4].tolist()] if len(x) > 4 and x[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.shape[axis]
        place = np.arange(size)[slice_of(start, end, step, size)]
        data = data.index_select(axis, torch.from_numpy(place.copy()))
    return data


def _compare(how: Any, sign: float) -> Operator:
    """A comparison as 0 and 1; the gradient is that of a ramp of width 2 (Hubara et al. 2016, 1602.02830)."""

    def compare(_: ir.Node, x: Tensors) -> torch.Tensor:
        a, b = _pair(x)
        ramp = (sign * (a - b) / 2 + 0.5).clamp(0, 1)
        return straight_through(ramp, how(a, b).to(ramp.dtype))

    return compare


def _where(_: ir.Node, x: Tensors) -> torch.Tensor:
    condition, a, b = (t for t in x if t is not None)
    return condition * a + (1 - condition) * b


def _cast(node: ir.Node, x: Tensors) -> torch.Tensor:
    data, to = _first(x).float(), ir.DataType(_int(node, "to", 1))
    if to.is_floating_point():
        return data
    if to == ir.DataType.BOOL:
        return straight_through(data, (data != 0).float())
    return straight_through(data, data.trunc())


def _clip(_: ir.Node, x: Tensors) -> torch.Tensor:
    data = _first(x)
    low, high = (x[i] if len(x) > i else None for i in (1, 2))
    data = data if low is None else torch.maximum(data, low)
    return data if high is None else torch.minimum(data, high)


def _unary(how: Any) -> Operator:
    return lambda _, x: how(_first(x))


def _binary(how: Any) -> Operator:
    return lambda _, x: how(*_pair(x))


OPERATORS: dict[str, Operator] = {
    **{
        name: _unary(how)
        for name, how in {
            "Relu": f.relu,
            "Sigmoid": torch.sigmoid,
            "Tanh": torch.tanh,
            "Softplus": f.softplus,
            "Softsign": f.softsign,
            "HardSwish": f.hardswish,
            "Mish": f.mish,
            "Abs": torch.abs,
            "Exp": torch.exp,
            "Log": torch.log,
            "Sqrt": torch.sqrt,
            "Neg": torch.neg,
            "Reciprocal": torch.reciprocal,
            "Erf": torch.erf,
            "Sin": torch.sin,
            "Cos": torch.cos,
            "Atan": torch.atan,
            "Sign": torch.sign,
            "Floor": torch.floor,
            "Ceil": torch.ceil,
            "Round": torch.round,
            "Identity": lambda x: x,
            "GlobalAveragePool": lambda x: x.mean(dim=list(range(2, x.ndim)), keepdim=True),
            "GlobalMaxPool": lambda x: x.amax(dim=list(range(2, x.ndim)), keepdim=True),
        }.items()
    },
    **{
        name: _binary(how)
        for name, how in {
            "Add": torch.add,
            "Sub": torch.sub,
            "Mul": torch.mul,
            "Div": torch.div,
            "Pow": torch.pow,
            "Min": torch.minimum,
            "Max": torch.maximum,
            "MatMul": torch.matmul,
            "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
        }.items()
    },
    **{
        name: _compare(how, sign)
        for name, how, sign in (
            ("Greater", torch.gt, 1.0),
            ("GreaterOrEqual", torch.ge, 1.0),
            ("Less", torch.lt, -1.0),
            ("LessOrEqual", torch.le, -1.0),
        )
    },
    "Where": _where,
    "Cast": _cast,
    "Not": lambda _, x: 1 - _first(x),
    "Gemm": _gemm,
    "Conv": _conv,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Reshape": _reshape,
    "Flatten": lambda n, x: _first(x).flatten(_int(n, "axis", 1)),
    "Transpose": lambda n, x: _first(x).permute(_ints(n, "perm", list(reversed(range(_first(x).ndim))))),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Concat": lambda n, x: torch.cat([t for t in x if t is not None], dim=_int(n, "axis", 0)),
    "Clip": _clip,
    "LeakyRelu": lambda n, x: f.leaky_relu(_first(x), _float(n, "alpha", 0.01)),
    "Elu": lambda n, x: f.elu(_first(x), _float(n, "alpha", 1.0)),
    "Selu": _unary(f.selu),
    "Celu": lambda n, x: f.celu(_first(x), _float(n, "alpha", 1.0)),
    "Gelu": lambda n, x: f.gelu(
        _first(x), approximate=n.attributes.get_string("approximate", "none") or "none"
    ),
    "HardSigmoid": lambda n, x: (_first(x) * _float(n, "alpha", 0.2) + _float(n, "beta", 0.5)).clamp(0, 1),
    "ThresholdedRelu": lambda n, x: torch.where(
        _first(x) > _float(n, "alpha", 1.0), _first(x), torch.zeros_like(_first(x))
    ),
    "Softmax": lambda n, x: torch.softmax(_first(x), dim=_int(n, "axis", -1)),
    "LogSoftmax": lambda n, x: torch.log_softmax(_first(x), dim=_int(n, "axis", -1)),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
}
"""Operators of ai.onnx that a student may have."""
