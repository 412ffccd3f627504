"""What a model looks like from outside: names, order, types and axes of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: Its name.
        dtype: Its type, None where unknown.
        sample: Axes of what belongs to one sample, without the samples' own axis; None for an open size, and
            None as a whole where the number of axes is unknown.
    """

    name: str
    dtype: ir.DataType | None
    sample: tuple[int | None, ...] | None

    def fits(self, other: Port) -> bool:
        """Whether both may be the same port, as far as both are known."""
        known = self.dtype is None or other.dtype is None or self.dtype is other.dtype
        if self.name != other.name or not known:
            return False
        if self.sample is None or other.sample is None:
            return True
        return len(self.sample) == len(other.sample) and all(
            a == b or a is None or b is None for a, b in zip(self.sample, other.sample, strict=True)
        )

    def __str__(self) -> str:
        axes = "?" if self.sample is None else ", ".join("?" if a is None else str(a) for a in self.sample)
        return f"{self.name!r} ({axes}) {'?' if self.dtype is None else self.dtype.name.lower()}"


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model, in order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """Of ``model`` as it stands.

        A fixed first axis is the samples' where it has the size that the inputs fix it to, or one. A model
        for one sample may return results that have no axis for it: all of theirs belong to the sample.
        """
        fixed = {1} | {v.shape[0] for v in model.graph.inputs if v.shape is not None and len(v.shape)}
        return cls(
            tuple(_port(v, fixed) for v in model.graph.inputs),
            tuple(_port(v, fixed) for v in model.graph.outputs),
        )

    def difference(self, after: Interface) -> tuple[str, str] | None:
        """What was and what is where ``after`` differs, in words; None where it is the same."""
        for kind, old, new in (
            ("inputs", self.inputs, after.inputs),
            ("outputs", self.outputs, after.outputs),
        ):
            if len(old) != len(new) or not all(a.fits(b) for a, b in zip(old, new, strict=True)):
                return f"{kind} {_shown(old, new)}", f"{kind} {_shown(new, old)}"
        return None


def _port(value: ir.Value, fixed: set[int | ir.SymbolicDim]) -> Port:
    if value.shape is None:
        return Port(str(value.name), value.dtype, None)
    dims = list(value.shape)
    if dims and (not isinstance(dims[0], int) or dims[0] in fixed):
        dims = dims[1:]
    return Port(str(value.name), value.dtype, tuple(d if isinstance(d, int) else None for d in dims))


def _shown(ports: tuple[Port, ...], others: tuple[Port, ...]) -> str:
    """Those that are not the same in both; all where only their number or order differs."""
    differing = [str(p) for p in ports if not any(p.fits(o) for o in others)]
    return ", ".join(differing or map(str, ports))
