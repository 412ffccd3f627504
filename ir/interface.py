"""What a model looks like from outside: names, order, types and ranks of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: Its name.
        dtype: Its type, None where unknown.
        rank: Number of its axes, None where unknown.
    """

    name: str
    dtype: ir.DataType | None
    rank: int | None

    @classmethod
    def of(cls, value: ir.Value) -> Port:
        """Of a value of a graph."""
        return cls(str(value.name), value.dtype, None if value.shape is None else len(value.shape))

    def fits(self, after: Port, stacked: bool) -> bool:
        """Whether both may be the same port, as far as they are known.

        Args:
            after: The port afterwards.
            stacked: Whether it may have gained an axis for the samples.
        """
        retyped = None not in (self.dtype, after.dtype) and self.dtype is not after.dtype
        if self.name != after.name or retyped:
            return False
        if self.rank is None or after.rank is None or self.rank == after.rank:
            return True
        return stacked and after.rank == self.rank + 1

    def __str__(self) -> str:
        dtype = "of unknown type" if self.dtype is None else self.dtype.name.lower()
        return f"{self.name!r} {dtype}" + ("" if self.rank is None else f" of {self.rank} axes")


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model, in order.

    Attributes:
        inputs: What it reads.
        outputs: What it returns.
        single: Whether it is made for one sample. Its results may then have no axis for the samples, and get
            one in front when the batch becomes free.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    single: bool = False

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Of ``model`` as it stands."""
        graph = model.graph
        single = any(v.shape is not None and len(v.shape) and v.shape[0] == 1 for v in graph.inputs)
        return cls(tuple(map(Port.of, graph.inputs)), tuple(map(Port.of, graph.outputs)), single)

    def observed(self, ranks: Mapping[str, int]) -> Interface:
        """The same with the ranks that outputs really have, None where nobody knows: files declare others."""
        return replace(self, outputs=tuple(replace(p, rank=ranks.get(p.name)) for p in self.outputs))

    def difference(self, after: Interface) -> tuple[str, str] | None:
        """What was and what is where ``after`` differs, in words; None where it is the same."""
        stacked = self.single and not after.single
        for kind, old, new, more in (
            ("inputs", self.inputs, after.inputs, False),
            ("outputs", self.outputs, after.outputs, stacked),
        ):
            if len(old) != len(new) or not all(a.fits(b, more) for a, b in zip(old, new, strict=True)):
                return f"{kind} {_shown(old, new)}", f"{kind} {_shown(new, old)}"
        return None


def _shown(ports: tuple[Port, ...], others: tuple[Port, ...]) -> str:
    """Those that are not the same in both; all where only their number or order differs."""
    return ", ".join(str(p) for p in ports if p not in others) or ", ".join(map(str, ports))
