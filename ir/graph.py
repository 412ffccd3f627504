"""Reading a graph: what is constant, what is not, and which layer a value belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from .dialect import DOMAIN

T = TypeVar("T")

LINEAR = frozenset({"Gemm", "MatMul", "Conv"})
"""Linear operators with a weight."""

LAYOUT = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
"""Operators that only move elements."""

MAXIMA = frozenset({"Max", "Min", "MaxPool", "ReduceMax", "ReduceMin"})
"""Operators that choose one of several elements; ``lower-to-lookups`` makes comparisons of them."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that draw random numbers whenever they run; a Dropout does so in training alone."""


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer that nobody can override, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``constant_of`` has an array; asking for the array copies it where it comes from a file."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def once(value: ir.Value | None, what: str, compute: Callable[[np.ndarray], T]) -> T | None:
    """Something about a constant, computed once for its tensor: tensors are replaced, never edited.

    Args:
        value: The constant.
        what: A name for it.
        compute: Makes it of the array.

    Returns:
        It, or None where ``value`` is no constant.
    """
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    known, key = value.const_value.meta, f"onnx_fhe.{what}"
    if key not in known:
        known[key] = compute(value.const_value.numpy())
    found: T = known[key]
    return found


def extremes_of(value: ir.Value | None) -> tuple[float, float] | None:
    """Smallest and largest element of a constant (0 and 0 where it has none), else None."""
    return once(value, "extremes", lambda a: (float(a.min()), float(a.max())) if a.size else (0.0, 0.0))


def variable_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are not constant, each once."""
    return list(dict.fromkeys(v for v in node.inputs if v is not None and not is_constant(v)))


def int_of(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return node.attributes.get_int(name, default)


def float_of(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints_of(node: ir.Node, name: str) -> list[int] | None:
    """A list of integers, None where the attribute is missing."""
    attribute = node.attributes.get(name)
    return None if attribute is None else list(attribute.as_ints())


def is_float(value: ir.Value | None) -> bool:
    """Whether the value is known to be floating-point (of a type that numpy computes with)."""
    return value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def rank_of(value: ir.Value | None) -> int | None:
    """Number of axes, where known."""
    return None if value is None or value.shape is None else len(value.shape)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value`` once, when nothing else sees it."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def constant_added_to(value: ir.Value) -> tuple[ir.Node, int, np.ndarray] | None:
    """The Add of a constant that alone sees ``value``, the index of the constant there, and the constant."""
    node = only_consumer(value)
    if node is None or node.op_type != "Add":
        return None
    index = 1 - next(iter(value.uses())).idx
    constant = constant_of(node.inputs[index])
    return None if constant is None else (node, index, constant)


def is_dialect(node: ir.Node, *op_types: str) -> bool:
    """Whether ``node`` is one of these operators of the dialect (of any, where none is named)."""
    return node.domain == DOMAIN and (not op_types or node.op_type in op_types)


STANDS_FOR = ("onnx_fhe.layer", "onnx_fhe.operator")
"""Metadata of nodes that an operator was taken apart into: its name and its type."""


def title_of(node: ir.Node) -> tuple[str, str]:
    """Name and operator of a node as its user knows it: of the one that it was made of, if any."""
    name, operator = (node.metadata_props.get(k) for k in STANDS_FOR)
    return name or str(node.name or ""), operator or node.op_type


def layer_of(value: ir.Value | None) -> ir.Node | None:
    """The node that computes what ``value`` holds, seen through layout, constants and rounding.

    That is a linear operator, a sum of two tensors, or a ReduceSum: the layer, as people know it, of a table
    that reads ``value``. None where another table or an input comes first.
    """
    node = value.producer() if value is not None else None
    while node is not None and not is_dialect(node, "TableLookup", "Encrypt"):
        if not node.domain and node.op_type in LINEAR | {"ReduceSum"}:
            return node
        inputs = variable_inputs(node)
        if len(inputs) != 1:
            return node
        node = inputs[0].producer()
    return None
