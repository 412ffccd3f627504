"""Encrypted indices: one-hot vectors by comparisons, and rows of a constant by products with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import constant_of, int_of, rank_of
from ..framework.rewriting import Refusal
from .rule import Rule, is_onnx


@dataclass(frozen=True)
class Hot:
    """A OneHot.

    Attributes:
        node: The node.
        axis: The axis that it adds, the batch counted.
        count: How many entries that has.
        rank: The rank of the index.
        values: What stands elsewhere, and what at the index.
    """

    node: ir.Node
    axis: int
    count: int
    rank: int
    values: np.ndarray


class SplitOneHot(Rule[Hot]):
    """OneHot of an encrypted index is a comparison with every number that it can be."""

    name: ClassVar[str] = "split-one-hot"

    def match(self, node: ir.Node) -> Hot | Refusal | None:
        """Its axis and values."""
        if not is_onnx(node, "OneHot") or constant_of(node.inputs[0]) is not None:
            return None
        x, depth, values = node.inputs[0], constant_of(node.inputs[1]), constant_of(node.inputs[2])
        rank = rank_of(x)
        if x is None or depth is None or values is None or rank is None or values.dtype != np.float32:
            return Refusal("its depth or its values are not constant, or no floats")
        axis = int_of(node, "axis", -1) % (rank + 1)
        if axis == 0:
            return Refusal("it adds an axis in front of the batch")
        return Hot(node, axis, int(depth.reshape(-1)[0]), rank, values)

    def apply(self, match: Hot) -> None:
        """Write the comparison."""
        node, count, name, edit = match.node, match.count, str(match.node.name), self.edit.at(match.node)

        def scalar(value: float, part: str) -> ir.Value:
            return edit.constant(f"{name}.{part}", np.array(value, np.float32))

        to = {"to": int(ir.DataType.FLOAT)}
        number = edit.add("Cast", node.inputs[:1], f"{name}/number", to)
        axes = edit.constant(f"{name}.axis", np.array([match.axis], np.int64))
        column = edit.add("Unsqueeze", [number, axes], f"{name}/column")
        shape = [count if i == match.axis else 1 for i in range(match.rank + 1)]
        target = edit.constant(f"{name}.shape", np.array(shape, np.int64))
        spread = edit.add("Expand", [column, target], f"{name}/spread")
        # An index may count from the end.
        wrapped = edit.add("Mod", [spread, scalar(count, "count")], f"{name}/wrapped", {"fmod": 1})
        below = edit.add("Less", [wrapped, scalar(0, "zero")], f"{name}/below")
        moved = edit.add("Add", [wrapped, scalar(count, "all")], f"{name}/moved")
        whole = edit.add("Where", [below, moved, wrapped], f"{name}/index")
        numbers = edit.constant(f"{name}.numbers", np.arange(count, dtype=np.float32).reshape(shape))
        same = edit.add("Equal", [whole, numbers], f"{name}/same")
        ends = [edit.constant(f"{name}.{w}", match.values[i : i + 1]) for i, w in ((1, "on"), (0, "off"))]
        edit.substitute(node, "Where", [same, *ends])


@dataclass(frozen=True)
class Picked:
    """A Gather of constant rows by an encrypted index."""

    node: ir.Node
    index: ir.Value
    rows: np.ndarray


def _picked(node: ir.Node) -> Picked | Refusal | None:
    rows = constant_of(node.inputs[0]) if len(node.inputs) == 2 else None
    index = node.inputs[1] if len(node.inputs) == 2 else None
    if not is_onnx(node, "Gather") or rows is None or index is None or constant_of(index) is not None:
        return None
    if rows.dtype != np.float32 or int_of(node, "axis", 0) != 0:
        return Refusal("what it picks are no floats, or not along the first axis")
    return Picked(node, index, rows)


class EmbeddingToMatmul(Rule[Picked]):
    """Gather of constant rows by an encrypted index is a one-hot vector times the rows."""

    name: ClassVar[str] = "embedding-to-matmul"

    def match(self, node: ir.Node) -> Picked | Refusal | None:
        """The rows."""
        found = _picked(node)
        if isinstance(found, Picked) and found.rows.ndim != 2:
            return Refusal("what it picks are no rows")
        return found

    def apply(self, match: Picked) -> None:
        """Write the product."""
        node, rows, index, name = match.node, match.rows, match.index, str(match.node.name)
        depth = self.edit.constant(f"{name}.depth", np.array(len(rows), np.int64))
        ends = self.edit.constant(f"{name}.ends", np.array([0, 1], np.float32))
        hot = self.edit.at(node).add("OneHot", [index, depth, ends], f"{name}/one_hot", {"axis": -1})
        hot.dtype = ir.DataType.FLOAT
        if index.shape is not None:
            hot.shape = ir.Shape([*index.shape, len(rows)])
        self.edit.substitute(node, "MatMul", [hot, node.inputs[0]])


class KeepIndexWithin(Rule[Picked]):
    """An index of numbers stays inside those that there are: tables have entries for a margin, too."""

    name: ClassVar[str] = "keep-index-within"

    def match(self, node: ir.Node) -> Picked | Refusal | None:
        """The numbers."""
        found = _picked(node)
        if not isinstance(found, Picked):
            return found
        if found.rows.ndim != 1:
            return Refusal("what it picks are no numbers")
        before = found.index.producer()
        if found.index.dtype is None or (before is not None and before.op_type == "Clip"):
            return Refusal("the index is within already, or of no known type")
        return found

    def apply(self, match: Picked) -> None:
        """Write a Clip in front."""
        node, index, count = match.node, match.index, len(match.rows)
        assert index.dtype is not None
        ends = [
            self.edit.constant(f"{node.name}.{what}", np.array(v, index.dtype.numpy()))
            for what, v in (("first", -count), ("last", count - 1))
        ]
        kept = self.edit.at(node).add("Clip", [index, *ends], f"{node.name}/within", like=index)
        node.replace_input_with(1, kept)
