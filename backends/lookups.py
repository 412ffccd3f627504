"""Reading the integer level: constants, and table lookups with the ranges that they declare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ..ir.errors import VerificationError
from ..ir.graph import int_of, is_dialect


def bits_of(low: int, high: int) -> int:
    """Bits that hold ``low .. high``: two's complement where ``low`` is negative; at least 1."""
    if low >= 0:
        return max(1, int(high).bit_length())
    return 1 + max(int(high).bit_length() if high > 0 else 0, (-int(low) - 1).bit_length())


def integers(value: ir.Value, node: ir.Node) -> np.ndarray:
    """The integers of a constant input, int64.

    Raises:
        VerificationError: It holds something else.
    """
    assert value.const_value is not None
    array = value.const_value.numpy()
    rounded = np.rint(array)
    if not np.array_equal(array, rounded):
        raise VerificationError(
            "a constant of the encrypted region is not an integer",
            found=f"{array.ravel()[np.argmax(array.ravel() != rounded.ravel())]} in {value.name!r}",
            allowed="integers",
            node=node.name or "",
            op=node.op_type,
        )
    return np.asarray(rounded.astype(np.int64))


@dataclass(frozen=True)
class Lookup:
    """A TableLookup with the RoundBits before it.

    Attributes:
        node: The TableLookup.
        source: Its input, before rounding.
        tables: (channels, size), int64.
        first: (channels), int64.
        step: Distance of neighbouring inputs.
        axis: Axis of the channels (as written, may be negative).
        lsbs_to_remove: Bits that rounding removes; 0 for none.
        mode: ``exact`` or ``approximate``.
    """

    node: ir.Node
    source: ir.Value
    tables: np.ndarray
    first: np.ndarray
    step: int
    axis: int
    lsbs_to_remove: int
    mode: str

    @property
    def size(self) -> int:
        """Entries of each table."""
        return int(self.tables.shape[1])

    @cached_property
    def span(self) -> int:
        """The largest accumulator above ``first`` that is within the declared range."""
        last = (self.size - 1) * self.step
        return last + (self.step // 2 - 1 if self.lsbs_to_remove else 0)

    @property
    def table_bits(self) -> int:
        """Bits that reach the table."""
        entries = self.size if self.lsbs_to_remove else self.span + 1
        return bits_of(0, entries - 1)

    @property
    def accumulator_bits(self) -> int:
        """Bits of the accumulator once ``first`` is subtracted: rounding leaves exactly ``table_bits``."""
        return self.table_bits + self.lsbs_to_remove


def along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """``values`` (channels) shaped to broadcast along ``axis`` of a tensor of ``rank`` axes."""
    shape = [1] * rank
    if len(values) > 1:
        shape[axis % rank] = len(values)
    return values.reshape(shape)


def read_lookup(node: ir.Node) -> Lookup:
    """The lookup of a TableLookup node.

    Raises:
        VerificationError: The operands do not fit together.
    """
    source, table, first = node.inputs
    assert source is not None
    assert table is not None
    assert first is not None
    step, removed, mode = int_of(node, "step", 1), 0, "exact"
    before = source.producer()
    if before is not None and is_dialect(before, "RoundBits"):
        removed = int_of(before, "lsbs_to_remove", 0)
        mode = before.attributes.get_string("mode", "exact")
        assert before.inputs[0] is not None
        source = before.inputs[0]
    axis = int_of(node, "axis", 1)
    lookup = Lookup(
        node,
        source,
        integers(table, node),
        integers(first, node),
        step,
        axis,
        removed,
        mode,
    )
    if removed and (step != 1 << removed or np.any(lookup.first % step)):
        raise VerificationError(
            "a table does not fit the rounding before it",
            found=f"step {step}, first {sorted({int(f) for f in lookup.first})[:4]}, {removed} bits removed",
            allowed=f"step {1 << removed} and multiples of it as first",
            node=node.name or "",
            op=node.op_type,
        )
    return lookup


def lookups(server: ir.Model) -> list[Lookup]:
    """Every lookup of a server part, in order."""
    return [read_lookup(n) for n in server.graph if is_dialect(n, "TableLookup")]


def rounding_unit(value: ir.Value | None) -> int:
    """``2^lsbs_to_remove`` where a RoundBits made ``value``, else 1."""
    node = value.producer() if value is not None else None
    return 1 << int_of(node, "lsbs_to_remove", 0) if node is not None and is_dialect(node, "RoundBits") else 1


def declared_range(node: ir.Node) -> tuple[int, int]:
    """``low`` and ``high`` of an Encrypt or Decrypt."""
    return int_of(node, "low", 0), int_of(node, "high", 1)


def marks(server: ir.Model, op_type: str) -> Iterable[ir.Node]:
    """The Encrypt or Decrypt nodes of a server part, in the order of its inputs or outputs."""
    nodes = [n for n in server.graph if is_dialect(n, op_type)]
    if op_type == "Encrypt":
        by_value = {n.inputs[0]: n for n in nodes}
        return [by_value[v] for v in server.graph.inputs]
    by_value = {n.outputs[0]: n for n in nodes}
    return [by_value[v] for v in server.graph.outputs]
