"""What the emission of one operator may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.ops.constants import integers_of
from .plan import Plan

Traced = Any
"""A Concrete tracer. Its package has no types."""


class Scope:
    """Values that were emitted so far.

    Attributes:
        plan: What is being emitted.
        values: Tracers by value.
        indexes: What indexes each table, after ``first`` was subtracted, by TableLookup node.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values: dict[ir.Value, Traced] = {}
        self.indexes: dict[ir.Node, Traced] = {}

    def operand(self, node: ir.Node, index: int) -> Traced:
        """Input ``index``: a tracer, or int64 where it is constant."""
        value = node.inputs[index]
        assert value is not None
        return self.values[value] if value in self.values else integers_of(value, node)

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Shape of a computed value, for the samples of a call."""
        assert value is not None
        return self.plan.shapes[value]

    def is_constant(self, node: ir.Node, index: int) -> bool:
        """Whether input ``index`` is a constant."""
        return isinstance(self.operand(node, index), np.ndarray)


Emission = Callable[[Scope, ir.Node], Traced]


def refuse(node: ir.Node, what: str, *, found: str = "", allowed: str = "", do: str = "") -> UnsupportedError:
    """The error for something that a circuit does not have, located at ``node``."""
    return UnsupportedError(what, found=found, allowed=allowed, do=do, node=node.name or "", op=node.op_type)
