"""``RoundBits``, and the operators that may stand behind one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from .view import View, default_of


@dataclass(frozen=True)
class RoundBits(View):
    """Removes least significant bits of a tensor (float32 that holds integers); ties go up."""

    op_type: ClassVar[str] = "RoundBits"

    @property
    def lsbs_to_remove(self) -> int:
        """Least significant bits that are removed."""
        return self._int("lsbs_to_remove")

    @property
    def unit(self) -> int:
        """``2^lsbs_to_remove``: what is left is a multiple of it."""
        return 1 << self.lsbs_to_remove

    @property
    def mode(self) -> str:
        """``exact`` (one more bootstrap for each bit) or ``approximate`` (free)."""
        return self.node.attributes.get_string("mode", str(default_of(self.op_type, "mode")))

    @property
    def is_exact(self) -> bool:
        """Whether the low bits are removed exactly."""
        return self.mode == "exact"

    @classmethod
    def make(
        cls, value: ir.Value, *, lsbs_to_remove: int, mode: str = "exact", name: str | None = None
    ) -> ir.Node:
        """A node that rounds ``value``."""
        return cls._node([value], {"lsbs_to_remove": lsbs_to_remove, "mode": mode}, name)

    def of_another(self, value: ir.Value) -> ir.Node:
        """A node that rounds ``value`` as this one rounds what it reads."""
        attributes = list(self.node.attributes.values())
        return ir.Node(self.domain, self.op_type, [value], attributes, num_outputs=1)


class BehindRounding(View):
    """An operator that may read an accumulator through a RoundBits."""

    @property
    def rounding(self) -> RoundBits | None:
        """The RoundBits in front of it, if there is one."""
        return RoundBits.producing(self.input)

    @property
    def source(self) -> ir.Value:
        """The accumulator: what it reads, or what the RoundBits in front of it reads."""
        return self.input if self.rounding is None else self.rounding.input

    @property
    def lsbs_to_remove(self) -> int:
        """Bits that the rounding in front of it removes; 0 where there is none."""
        return 0 if self.rounding is None else self.rounding.lsbs_to_remove
