"""Writing the operators that a larger one is taken apart into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir.editing import GraphEditor


class Parts:
    """Writes operators in front of a node.

    Args:
        edit: The editor of the model.
        node: The node.
        dtype: Type of the numbers that operators get; the type of the node's result where it is None.
    """

    def __init__(self, edit: GraphEditor, node: ir.Node, dtype: np.dtype | None = None) -> None:
        self.edit, self.node, self.name = edit, node, str(node.name)
        kind = node.outputs[0].dtype
        assert kind is not None
        self.dtype = kind.numpy() if dtype is None else dtype

    def add(
        self, op: str, *inputs: ir.Value | None, part: str = "", **attributes: int | list[int]
    ) -> ir.Value:
        """The output of a new node."""
        return self.edit.at(self.node).add(op, list(inputs), f"{self.name}/{part or op.lower()}", attributes)

    def number(self, value: float) -> ir.Value:
        """A scalar."""
        return self.edit.constant(f"{self.name}.number", np.array(value, self.dtype))

    def array(self, value: np.ndarray) -> ir.Value:
        """A constant of the type of the numbers."""
        return self.edit.constant(f"{self.name}.constant", np.asarray(value, self.dtype))

    def indices(self, values: Sequence[int]) -> ir.Value:
        """A constant vector of whole numbers."""
        return self.edit.constant(f"{self.name}.axes", np.array(values, np.int64))

    def square(self, x: ir.Value | None, part: str = "squares") -> ir.Value:
        """``x * x``."""
        return self.add("Mul", x, x, part=part)

    def power(self, x: ir.Value | None, p: int) -> ir.Value:
        """``|x| ** p``."""
        if p == 2:
            return self.square(x)
        size = self.add("Abs", x)
        return size if p == 1 else self.add("Pow", size, self.number(p), part="powers")

    def root(self, total: ir.Value, p: int) -> ir.Value:
        """``total ** (1 / p)``."""
        if p <= 2:
            return self.add("Sqrt", total) if p == 2 else total
        return self.add("Pow", total, self.number(1 / p), part="root")

    def normalized(
        self, x: ir.Value | None, axes: Sequence[int], epsilon: float, center: bool
    ) -> tuple[ir.Value, ir.Value | None, ir.Value]:
        """``(x - mean) / sqrt(variance + epsilon)``, the mean, and what it is multiplied by."""
        where, mean = self.indices(axes), None
        if center:
            mean = self.add("ReduceMean", x, where, part="mean")
            x = self.add("Sub", x, mean, part="centered")
        variance = self.add("ReduceMean", self.square(x), where, part="variance")
        shifted = self.add("Add", variance, self.number(epsilon), part="shifted")
        factor = self.add("Reciprocal", self.add("Sqrt", shifted))
        return self.add("Mul", x, factor, part="normalized"), mean, factor
