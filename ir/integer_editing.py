"""Editing the integer level: what is made holds integers in float32, unless it says otherwise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from . import dialect
from .editing import GraphEditor


class IntegerEditor(GraphEditor):
    """A graph editor whose nodes and constants are float32, with the operators of the dialect.

    Args:
        model: The model; edited in place.
    """

    output_suffix: ClassVar[str] = "out"

    def insert(self, node: ir.Node, name: str, like: ir.Value | None = None) -> ir.Value:
        """Insert a node that was made without a name; its output is float32 and shaped like ``like``."""
        if node.domain == dialect.DOMAIN:
            self.graph.opset_imports[dialect.DOMAIN] = dialect.VERSION
        output = super().insert(node, name, like)
        output.type = ir.TensorType(ir.DataType.FLOAT)
        return output

    def constant(self, name: str, array: np.ndarray, dtype: type | None = np.float32) -> ir.Value:
        """A new initializer, of float32 where no other type is given."""
        return super().constant(name, array, dtype)

    def scaled(self, value: ir.Value, factor: np.ndarray, name: str) -> ir.Value:
        """``value * factor``, or ``value`` itself where the factor is 1 everywhere."""
        if np.all(factor == 1):
            return value
        return self._combined("Mul", value, factor, name, "factor")

    def shifted(self, value: ir.Value, offset: np.ndarray, name: str) -> ir.Value:
        """``value + offset``, or ``value`` itself where the offset is 0 everywhere."""
        if not np.any(offset):
            return value
        return self._combined("Add", value, offset, name, "offset")

    def _combined(self, op: str, value: ir.Value, array: np.ndarray, name: str, what: str) -> ir.Value:
        """``value`` and a constant, whose axes may be longer: a factor for each channel that it will meet."""
        result = self.add(op, [value, self.constant(f"{name}_{what}", array)], name, like=value)
        if value.shape is not None and array.ndim <= len(value.shape):
            sizes = (*[1] * (len(value.shape) - array.ndim), *array.shape)
            result.shape = ir.Shape(
                [n if n > 1 and d == 1 else d for d, n in zip(value.shape, sizes, strict=True)]
            )
        return result
