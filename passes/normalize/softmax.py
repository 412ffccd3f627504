"""Softmax inside the encrypted part: few elements by all their differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import int_of, is_float, rank_of
from ..framework.rewriting import Refusal
from .parts import Parts
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx

MAX_SOFTMAX_ELEMENTS = 16
"""Most elements of a Softmax inside the encrypted part: it takes a table for every pair of them."""

TOO_MANY = Refusal(f"there are more than {MAX_SOFTMAX_ELEMENTS} elements, or one")
OVER_SAMPLES = Refusal("it works along the batch")


@dataclass(frozen=True)
class Chosen:
    """An operator along one axis.

    Attributes:
        node: The node.
        axis: The axis, the batch counted.
        sample: The shape of a sample of what it reads.
    """

    node: ir.Node
    axis: int
    sample: list[int]

    @property
    def size(self) -> int:
        """Elements along the axis."""
        return self.sample[self.axis - 1]

    @property
    def order(self) -> list[int]:
        """The order of axes in which this one comes last."""
        return [i for i in range(len(self.sample) + 1) if i != self.axis] + [self.axis]

    @property
    def back(self) -> list[int]:
        """The order that undoes ``order``."""
        return [int(i) for i in np.argsort(self.order)]

    @property
    def moved(self) -> list[int]:
        """The shape of a sample in ``order``."""
        return [self.sample[i - 1] for i in self.order[1:]]

    def axis_last(self, parts: Parts) -> ir.Value | None:
        """What the node reads, with the axis moved to the end."""
        x = self.node.inputs[0]
        return x if self.axis == len(self.sample) else parts.add("Transpose", x, part="last", perm=self.order)


class SplitSoftmax(Rule[Chosen]):
    """Softmax over few elements: ``1 / sum over j of exp(x_j - x_i)``, all differences by one linear layer.

    Of two elements that is a sigmoid of their difference. For more it takes a table for each pair, but no
    product and no quotient, and nothing overflows: where a difference is large, the quotient is 0 as it is.
    """

    name: ClassVar[str] = "split-softmax"

    def match(self, node: ir.Node) -> Chosen | Refusal | None:
        """The node and its axis."""
        if not is_onnx(node, "Softmax"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        rank, sample = rank_of(node.inputs[0]), shapes.static_of_sample(node.inputs[0])
        if rank is None or sample is None:
            return NOT_STATIC
        axis = int_of(node, "axis", -1) % rank
        if axis == 0:
            return OVER_SAMPLES
        return Chosen(node, axis, sample) if 1 < sample[axis - 1] <= MAX_SOFTMAX_ELEMENTS else TOO_MANY

    def apply(self, match: Chosen) -> None:
        """Write the differences and what is made of them."""
        node, size, parts = match.node, match.size, Parts(self.edit, match.node)
        x = match.axis_last(parts)
        if size == 2:
            both = parts.array(np.array([[1.0, -1.0], [-1.0, 1.0]]))
            share = parts.add("Sigmoid", parts.add("MatMul", x, both, part="difference"))
            self.edit.substitute(node, "Transpose", [share], {"perm": match.back})
            return
        eye = np.eye(size)
        pairs = (eye[:, None, :] - eye[:, :, None]).reshape(size, -1)  # column (i, j) is x_j - x_i
        differences = parts.add("MatMul", x, parts.array(pairs), part="differences")
        powers = parts.add("Exp", differences)
        split = parts.add("Reshape", powers, parts.indices([-1, *match.moved, size]), part="pairs")
        total = parts.add("ReduceSum", split, parts.indices([-1]), part="sum", keepdims=0)
        if match.axis == len(match.sample):
            self.edit.substitute(node, "Reciprocal", [total])
        else:
            share = parts.add("Reciprocal", total)
            self.edit.substitute(node, "Transpose", [share], {"perm": match.back})


class SplitLogSoftmax(Rule[tuple[ir.Node, int]]):
    """LogSoftmax is the difference to the logarithm of a sum of exponentials.

    Nothing is taken off before the exponential: what is encrypted has a known range, and overflows nowhere.
    """

    name: ClassVar[str] = "split-log-softmax"

    def match(self, node: ir.Node) -> tuple[ir.Node, int] | Refusal | None:
        """The node and its axis."""
        rank = rank_of(node.inputs[0]) if node.inputs else None
        if not is_onnx(node, "LogSoftmax"):
            return None
        if rank is None:
            return NOT_STATIC
        axis = int_of(node, "axis", -1) % rank
        return OVER_SAMPLES if axis == 0 else (node, axis)

    def apply(self, match: tuple[ir.Node, int]) -> None:
        """Write the difference."""
        node, axis = match
        x, name, edit = node.inputs[0], str(node.name), self.edit.at(node)
        axes = edit.constant(f"{name}.axis", np.array([axis], np.int64))
        powers = edit.add("Exp", [x], f"{name}/powers", like=x)
        total = edit.add("ReduceSum", [powers, axes], f"{name}/total", {"keepdims": 1})
        edit.substitute(node, "Sub", [x, edit.add("Log", [total], f"{name}/log")])
