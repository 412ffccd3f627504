"""What does nothing goes, and shapes that are known are written out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of, int_of
from ..framework.rewriting import Refusal
from .rule import NOT_STATIC, Rule, is_onnx

Target = tuple[ir.Node, np.ndarray]
"""A node, and the shape that it gives."""


class RemoveNoop(Rule[ir.Node]):
    """Identity, Dropout, a Cast to the same type and a Transpose that keeps the order go.

    Raises:
        UnsupportedError: A Dropout is in training mode.
    """

    name: ClassVar[str] = "remove-noop"

    def match(self, node: ir.Node) -> ir.Node | Refusal | None:
        """The node, where it does nothing and the interface does not need it."""
        value = node.inputs[0] if node.inputs else None
        if value is None or not is_onnx(node, "Identity", "Dropout", "Cast", "Transpose"):
            return None
        if node.op_type == "Dropout":
            _check_dropout(node)
        elif node.op_type == "Cast":
            if value.dtype is None or int_of(node, "to", 0) != int(value.dtype):
                return Refusal("it changes the type")
        elif node.op_type == "Transpose":
            order = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
            if order is None or order != sorted(order):
                return Refusal("it changes the order of axes")
        if not self.edit.can_bypass(node, value):
            return Refusal("the model returns it, and an input or another output cannot stand in its place")
        return node

    def apply(self, match: ir.Node) -> None:
        """Let its input be read."""
        value = match.inputs[0]
        assert value is not None
        self.edit.bypass(match, value)


def _check_dropout(node: ir.Node) -> None:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_of(mode)
    if mode is not None and (array is None or array.any()):
        raise UnsupportedError(
            "a Dropout is in training mode: it drops at random",
            node=node.name or "",
            op="Dropout",
            found="training_mode is true" if array is not None else "training_mode is computed",
            allowed="inference mode",
            do="export the model in eval mode",
        )


class MakeReshapeConstant(Rule[Target]):
    """A Reshape to a computed shape, of which only the batch is free, becomes one to a constant shape."""

    name: ClassVar[str] = "make-reshape-constant"

    def match(self, node: ir.Node) -> Target | Refusal | None:
        """The shape."""
        if not is_onnx(node, "Reshape") or constant_of(node.inputs[1]) is not None:
            return None
        dims = shapes.dims_of(node.outputs[0])
        if dims is None or not all(isinstance(d, int) or d == shapes.BATCH for d in dims):
            return NOT_STATIC
        if 0 in dims or dims.count(shapes.BATCH) > 1:
            return Refusal("a constant target cannot say this shape")
        return node, np.array([d if isinstance(d, int) else -1 for d in dims], np.int64)

    def apply(self, match: Target) -> None:
        """Write it out."""
        node, target = match
        self.edit.set_constant(node, 1, target, f"{node.name}.shape")


class MakeExpandConstant(Rule[Target]):
    """An Expand to a computed shape with the batch of its input becomes one that leaves the batch alone."""

    name: ClassVar[str] = "make-expand-constant"

    def match(self, node: ir.Node) -> Target | Refusal | None:
        """The shape."""
        if not is_onnx(node, "Expand") or constant_of(node.inputs[1]) is not None:
            return None
        before, after = shapes.dims_of(node.inputs[0]), shapes.dims_of(node.outputs[0])
        if not before or not after or not all(isinstance(d, int) for d in after[1:]):
            return NOT_STATIC
        if len(before) != len(after) or before[0] != after[0] or 0 in after:
            return Refusal("it expands the batch, or a constant target cannot say its shape")
        return node, np.array([1, *after[1:]], np.int64)

    def apply(self, match: Target) -> None:
        """Write it out."""
        node, target = match
        self.edit.set_constant(node, 1, target, f"{node.name}.shape")


class MergeReshapes(Rule[tuple[ir.Node, ir.Value]]):
    """A Reshape of a Reshape is the second alone, where its target is written out."""

    name: ClassVar[str] = "merge-reshapes"

    def match(self, node: ir.Node) -> tuple[ir.Node, ir.Value] | Refusal | None:
        """The second, and what the first one reads."""
        before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if not is_onnx(node, "Reshape") or before is None or not is_onnx(before, "Reshape"):
            return None
        target, source = constant_of(node.inputs[1]), before.inputs[0]
        if target is None or 0 in target or source is None:
            return Refusal("its target is computed, or takes a size from what it reads")
        return node, source

    def apply(self, match: tuple[ir.Node, ir.Value]) -> None:
        """Let the second read that."""
        node, source = match
        node.replace_input_with(0, source)
