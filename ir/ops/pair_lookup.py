"""``PairLookup``: a table of two inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..graph import extremes_of
from .constants import constant_input
from .view import View


@dataclass(frozen=True)
class PairLookup(View):
    """``entries[c, x - first[0], y - first[1]]`` of two encrypted tensors, which broadcast."""

    op_type: ClassVar[str] = "PairLookup"

    @property
    def operands(self) -> tuple[ir.Value, ir.Value]:
        """The two encrypted tensors, x and y."""
        x, y = self.node.inputs[:2]
        assert x is not None
        assert y is not None
        return x, y

    @property
    def entries(self) -> np.ndarray:
        """(channels, values of x, values of y) float32.

        Raises:
            VerificationError: The table is computed.
        """
        return constant_input(self.node, 2).numpy()

    @property
    def first(self) -> np.ndarray:
        """(2) float32: the x and the y that select entry 0.

        Raises:
            VerificationError: They are computed.
        """
        return constant_input(self.node, 3).numpy()

    @property
    def entry_range(self) -> tuple[float, float]:
        """Smallest and largest entry of all tables.

        Raises:
            VerificationError: The table is computed.
        """
        constant_input(self.node, 2)
        found = extremes_of(self.node.inputs[2])
        assert found is not None
        return found

    @property
    def axis(self) -> int:
        """Axis of the channels, batch counted."""
        return self._int("axis")

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
