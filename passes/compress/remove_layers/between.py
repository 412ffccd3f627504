"""What stands between two linear operators: element-wise parts, pooling and layout, in one line."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.regions.elementwise import ElementwiseProbe
from ....analysis.regions.linear import Linear, linear_of
from ....ir.graph import LAYOUT, variable_inputs

AVERAGE = {
    "AveragePool": "AveragePool",
    "GlobalAveragePool": "GlobalAveragePool",
    "GlobalMaxPool": "GlobalAveragePool",
    "MaxPool": "AveragePool",
}
"""Operators that take a window of one channel, and the average over the same window."""


@dataclass(frozen=True)
class Curve:
    """Element-wise operators that make ``end`` of ``root`` alone.

    Attributes:
        root: What they read.
        end: What comes out, of the same shape.
    """

    root: ir.Value
    end: ir.Value


Stage = Curve | ir.Node


class Between:
    """Finds the stages between linear operators.

    Args:
        opset: ai.onnx opset of the model.
    """

    def __init__(self, opset: int) -> None:
        self._probe = ElementwiseProbe(opset)

    def readers(self, first: ir.Node) -> list[Linear] | str:
        """The linear operators that read ``first`` through other operators, or why they are not all.

        Returns:
            The operators in the order in which they were found, or a reason.
        """
        found: dict[ir.Node, Linear] = {}
        pending, seen = list(first.outputs), set(first.outputs)
        while pending:
            value = pending.pop(0)
            if value.is_graph_output():
                return f"it reaches the graph output {value.name} with no linear layer behind it"
            for use in value.uses():
                linear = linear_of(use.node)
                if linear is not None and use.idx == 0:
                    found.setdefault(use.node, linear)
                    continue
                if use.node.op_type == "Gemm" and linear is None:
                    return f"{use.node.name} has no constant weights, or not the form that normalize leaves"
                new = [o for o in use.node.outputs if o not in seen]
                seen.update(new)
                pending += new
        return list(found.values()) or "nothing reads it"

    def stages(self, first: ir.Value, last: ir.Value) -> list[Stage] | str:
        """What makes ``last`` of ``first``, in order, or why that is no single line of stages."""
        stages: list[Stage] = []
        value = last
        while value is not first:
            node = value.producer()
            if node is None or linear_of(node) is not None:
                return f"what {_reader(last)} reads does not come from it alone"
            if (
                node.domain == ""
                and node.op_type in LAYOUT | AVERAGE.keys()
                and len(variable_inputs(node)) == 1
            ):
                stages.append(node)
                (value,) = variable_inputs(node)
                continue
            root = self._root(value, first)
            if isinstance(root, str):
                return root
            stages.append(Curve(root, value))
            value = root
        return stages[::-1]

    def _root(self, end: ir.Value, first: ir.Value) -> ir.Value | str:
        """The one value that element-wise operators make ``end`` of."""
        roots: set[ir.Value] = set()
        pending, seen = [end], {end}
        while pending:
            value = pending.pop()
            node = value.producer()
            if value is first or node is None or linear_of(node) is not None:
                roots.add(value)
                continue
            variable = variable_inputs(node)
            if not self._probe(node, variable):
                if value is end:
                    return _mixes(node, variable)
                roots.add(value)
                continue
            new = [v for v in variable if v not in seen]
            seen.update(new)
            pending += new
        if len(roots) != 1:
            node = end.producer()
            assert node is not None
            names = ", ".join(sorted(str(r.name) for r in roots))
            return f"{node.name} ({node.op_type}) depends on {len(roots)} tensors: {names}"
        return roots.pop()


def _mixes(node: ir.Node, variable: list[ir.Value]) -> str:
    if len(variable) > 1:
        return f"{node.name} ({node.op_type}) joins {len(variable)} tensors"
    return f"{node.name} ({node.op_type}) is neither element-wise, layout nor pooling"


def _reader(value: ir.Value) -> str:
    return ", ".join(str(n.name) for n in value.consumers())
