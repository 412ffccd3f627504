"""The small arrays that shapes are made of, as far as they are known without running anything."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

MAX_CONTENT_ELEMENTS = 1024
"""Elements of a constant up to which its content is followed, as a shape or an index that others read."""
NUMBERS = frozenset(
    {TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.DOUBLE}
)
# What shapes are computed with; the results of other operators stay unknown.
SHAPE_MATH = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "Identity",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Pow",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def shape_content(node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray:
    """The result of a Shape or Size of a value of this shape."""
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[slice(bounds.get("start"), bounds.get("end"))], np.int64)


_CONSTANTS: dict[str, Callable[[onnx.AttributeProto], object]] = {
    "value_int": lambda a: np.array(a.i, np.int64),
    "value_ints": lambda a: np.array(a.ints, np.int64),
    "value_float": lambda a: np.array(a.f, np.float32),
    "value_floats": lambda a: np.array(a.floats, np.float32),
}


def constant_content(node: onnx.NodeProto) -> np.ndarray | None:
    """The numbers of a Constant, where they are few."""
    for attribute in node.attribute:
        if attribute.name in _CONSTANTS:
            return np.asarray(_CONSTANTS[attribute.name](attribute))
        if attribute.name == "value" and math.prod(attribute.t.dims) <= MAX_CONTENT_ELEMENTS:
            return numpy_helper.to_array(attribute.t) if attribute.t.data_type in NUMBERS else None
    return None
