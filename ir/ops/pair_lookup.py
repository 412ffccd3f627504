"""``PairLookup``: a table of two inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from .tables import HasTables


@dataclass(frozen=True)
class PairLookup(HasTables):
    """``entries[c, x - first[0], y - first[1]]`` of two encrypted tensors, which broadcast."""

    op_type: ClassVar[str] = "PairLookup"
    tensors: ClassVar[int] = 2

    @property
    def operands(self) -> tuple[ir.Value, ir.Value]:
        """The two encrypted tensors, x and y."""
        x, y = self.node.inputs[:2]
        assert x is not None
        assert y is not None
        return x, y

    @classmethod
    def make(
        cls,
        x: ir.Value,
        y: ir.Value,
        entries: ir.Value,
        first: ir.Value,
        *,
        axis: int = 1,
        name: str | None = None,
    ) -> ir.Node:
        """A node that looks pairs up: ``entries`` (channels, values of x, values of y), ``first`` (2)."""
        return cls._node([x, y, entries, first], {"axis": axis}, name)
