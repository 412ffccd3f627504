"""How far the elements of integer tensors are from 0 at most, each for itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from . import runtime
from .graph import LINEAR, MAXIMA, constant_of, variable_inputs
from .interval_arithmetic import Bounds
from .movement import may_move


class Reaches:
    """Bounds of absolute values, element by element: what ``ir.intervals`` says of a whole tensor, sharper.

    A whole number that makes up for a small window stands at the elements of small windows alone, so the
    largest of all elements times the largest of all numbers is more than any sum can be.

    Args:
        bounds: Bounds of whole tensors, as far as they are known; more may become known later.
        opset: Opset of the model.
    """

    def __init__(self, bounds: Mapping[ir.Value, Bounds], opset: int) -> None:
        self._bounds = bounds
        self._opset = opset
        self._known: dict[ir.Value, np.ndarray | None] = {}

    def of(self, value: ir.Value) -> np.ndarray | None:
        """The largest absolute value of each element of one sample; the sums on the way are no larger.

        Returns:
            float32, or None where nothing is known.
        """
        if value not in self._known:
            made = self._made(value)
            if made is None and value in self._bounds:
                made = self._everywhere(value, max(abs(end) for end in self._bounds[value]))
            self._known[value] = made
        return self._known[value]

    def _made(self, value: ir.Value) -> np.ndarray | None:
        """From what the value is made of; None where no rule says how."""
        node = value.producer()
        if node is None or node.domain or not node.inputs or node.op_type == "Cast":
            return None
        variable = variable_inputs(node)
        read = {v: self.of(v) for v in variable}
        known = {v: a for v, a in read.items() if a is not None}
        if not known or len(known) < len(read):
            return None
        if node.op_type in {"Add", "Sub", "Mul"}:
            first, second = (self._magnitude(v) for v in node.inputs)
            return np.asarray(first * second if node.op_type == "Mul" else first + second)
        if node.op_type == "Neg":
            return known[variable[0]]
        if node.op_type in MAXIMA:
            # The least of several may be any of them.
            return self._everywhere(
                value, max(self._magnitude(v).max() for v in node.inputs if v is not None)
            )
        if node.op_type in LINEAR | {"ReduceSum"} or may_move(node):
            return self._run(value, node, known)
        return None

    @staticmethod
    def _everywhere(value: ir.Value, reach: float) -> np.ndarray | None:
        if value.shape is None:
            return None
        shape = [1, *(d if isinstance(d, int) else 1 for d in list(value.shape)[1:])]
        return np.full(shape, reach, np.float32)

    def _magnitude(self, value: ir.Value | None) -> np.ndarray:
        constant = constant_of(value)
        found = np.abs(constant) if constant is not None else self._known[value]  # type: ignore[index]
        return np.asarray(found, np.float32)

    def _run(self, value: ir.Value, node: ir.Node, known: Mapping[ir.Value, np.ndarray]) -> np.ndarray:
        """The operator on magnitudes: float32 is exact below 2^24, and never finds less where it is more."""
        given: list[ir.Value | None] = []
        arrays: dict[ir.Value, np.ndarray] = {}
        for read in node.inputs:
            if read is None:
                given.append(None)
                continue
            constant = constant_of(read)
            array = known[read] if constant is None else constant
            # Values of its own: a node that reads the others would count among their users.
            alone = ir.Value(name=f"{read.name}_magnitude")
            given.append(alone)
            # Of an array without axes, such as the value of a Pad, abs makes a number.
            arrays[alone] = np.asarray(np.abs(array)) if array.dtype == np.float32 else array
        attributes = list(node.attributes.values())
        clone = ir.Node("", node.op_type, given, attributes, num_outputs=len(node.outputs))
        wanted = clone.outputs[list(node.outputs).index(value)]
        return runtime.run_nodes([clone], arrays, [wanted], self._opset)[0]
