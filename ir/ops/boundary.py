"""``Encrypt`` and ``Decrypt``: the boundary of the encrypted region, and the ranges declared there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..bits import bits_of
from .rounding import BehindRounding
from .view import View


@dataclass(frozen=True)
class _Boundary(View):
    """An operator that declares the range of the integers that cross the boundary."""

    @property
    def low(self) -> int:
        """Smallest integer that crosses (inclusive)."""
        return self._int("low")

    @property
    def high(self) -> int:
        """Largest integer that crosses (inclusive)."""
        return self._int("high")

    @property
    def range(self) -> tuple[int, int]:
        """``low`` and ``high``."""
        return self.low, self.high

    @property
    def bits(self) -> int:
        """Bits that hold the range."""
        return bits_of(*self.range)

    def declare(self, low: float, high: float) -> None:
        """Declare the smallest range of integers that holds ``[low, high]``."""
        for name, end in (("low", math.floor(low)), ("high", math.ceil(high))):
            self.node.attributes[name] = ir.AttrInt64(name, end)


@dataclass(frozen=True)
class Encrypt(_Boundary):
    """Where the encrypted region begins; ``output`` is the encrypted tensor."""

    op_type: ClassVar[str] = "Encrypt"

    @classmethod
    def make(cls, value: ir.Value, *, low: int, high: int, name: str | None = None) -> ir.Node:
        """A node that encrypts ``value``, integers of ``low .. high`` held in float32."""
        return cls._node([value], {"low": low, "high": high}, name)


@dataclass(frozen=True)
class Decrypt(_Boundary, BehindRounding):
    """Where the encrypted region ends; ``output`` is the tensor that the client gets.

    Behind a RoundBits the low bits of ``source`` are not decrypted.
    """

    op_type: ClassVar[str] = "Decrypt"

    @classmethod
    def make(cls, value: ir.Value, *, low: float, high: float, name: str | None = None) -> ir.Node:
        """A node that decrypts ``value``, integers within ``[low, high]``."""
        made = cls(cls._node([value], {}, name))
        made.declare(low, high)
        return made.node


def encrypts_by_input(server: ir.Model) -> list[Encrypt]:
    """The Encrypts of a server part (``ir.partition``), in the order of its inputs."""
    by_value = {e.input: e for e in Encrypt.all_in(server)}
    return [by_value[v] for v in server.graph.inputs]


def decrypts_by_output(server: ir.Model) -> list[Decrypt]:
    """The Decrypts of a server part (``ir.partition``), in the order of its outputs."""
    by_value = {d.output: d for d in Decrypt.all_in(server)}
    return [by_value[v] for v in server.graph.outputs]
