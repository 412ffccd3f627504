"""What lookups of one and of two tensors share: tables, where they begin, and whose channels they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..graph import extremes_of
from .constants import constant_input
from .view import View


@dataclass(frozen=True)
class HasTables(View):
    """An operator that looks elements up in constant tables, which follow the tensors that it reads.

    Attributes:
        tensors: How many tensors it reads.
    """

    tensors: ClassVar[int]

    @property
    def entries(self) -> np.ndarray:
        """(channels, size), or for pairs (channels, values of x, values of y), float32.

        There is 1 channel where a table is that of the whole tensor.

        Raises:
            VerificationError: The table is computed.
        """
        return constant_input(self.node, self.tensors).numpy()

    @property
    def first(self) -> np.ndarray:
        """The inputs that select entry 0, float32: (channels), or for pairs (2), those of x and y.

        Raises:
            VerificationError: They are computed.
        """
        return constant_input(self.node, self.tensors + 1).numpy()

    @property
    def entry_range(self) -> tuple[float, float]:
        """Smallest and largest entry of all tables.

        Raises:
            VerificationError: The table is computed.
        """
        constant_input(self.node, self.tensors)
        found = extremes_of(self.node.inputs[self.tensors])
        assert found is not None
        return found

    @property
    def axis(self) -> int:
        """Axis of the channels, batch counted; as it is written, so it may be negative."""
        return self._int("axis")
