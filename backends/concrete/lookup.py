"""Emission of the dialect: table lookups with their rounding, and the edges of the encrypted region."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from concrete import fhe

from ...ir.bits import bits_of
from ...ir.movement import CANDIDATES
from ...ir.ops import Decrypt, Encrypt, RoundBits, TableLookup
from .bounds import declare, declared, moves
from .scope import Emission, Scope, Traced, refuse


def _table_lookup(scope: Scope, node: ir.Node) -> Traced:
    lookup = scope.plan.lookups[node]
    shape = scope.shape(lookup.source)
    index = _index(scope, lookup, len(shape))
    scope.indexes[node] = index
    if lookup.lsbs_to_remove:
        # The declared range leaves half a step above it: rounding up never needs another bit, nor protection.
        index = fhe.round_bit_pattern(
            index,
            lookup.lsbs_to_remove,
            overflow_protection=False,
            exactness=_exactness(lookup.is_rounded_exactly),
        )
        declare(index, 0, 2**lookup.accumulator_bits - 1)
    result = fhe.univariate(_evaluator(lookup, shape))(index)
    declare(result, *map(int, lookup.entry_range))
    return result


def _index(scope: Scope, lookup: TableLookup, rank: int) -> Traced:
    """The accumulator less ``first``, declared to fit the table's width exactly."""
    x = scope.values[lookup.source]
    high = 2**lookup.accumulator_bits - 1
    first = lookup.integer_first
    if np.any(first) or not _may_declare(x, lookup, high):
        x = x - lookup.per_channel(first, rank)
    declare(x, 0, high)
    return x


def _may_declare(x: Traced, lookup: TableLookup, high: int) -> bool:
    """Whether the accumulator itself can carry the index's width, instead of a node of its own.

    It must have no other reader (who may need another width) and no range of its own, except one that the
    table accepts as it is.
    """
    producer = lookup.source.producer()
    alone = len(lookup.source.uses()) == 1 and len(lookup.input.uses()) == 1
    if not alone or moves(x) or producer is None or producer.op_type in CANDIDATES:
        return False
    own = declared(x)
    return own is None or (not lookup.lsbs_to_remove and own[0] >= 0 and own[1] <= high)


def _evaluator(lookup: TableLookup, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """The tables as a function of the index; past the declared width it wraps."""
    shift, entries = lookup.lsbs_to_remove, 2**lookup.table_bits
    tables = lookup.integer_entries
    if not shift and lookup.step > 1:
        tables = np.repeat(tables, lookup.step, axis=1)
    missing = max(0, entries - tables.shape[1])
    tables = np.pad(tables, ((0, 0), (0, missing)), mode="edge")
    channels = lookup.channel_of_elements(shape)

    def table(x: np.ndarray) -> np.ndarray:
        return np.asarray(tables[channels, (np.asarray(x) >> shift) % entries])

    return table


def _round_bits(scope: Scope, node: ir.Node) -> Traced:
    """A table that reads it rounds itself; what goes to the client is rounded here."""
    x, rounding = scope.operand(node, 0), RoundBits.of(node)
    readers = [u for u, _ in node.outputs[0].uses()]
    for reader in readers:
        if not (TableLookup.match(reader) or Decrypt.match(reader)):
            raise refuse(
                node,
                "a rounded value is read by something that is no table",
                found=f"{reader.op_type} {reader.name!r}",
                allowed="TableLookup, Decrypt",
            )
    ranges = [d.range for r in readers if (d := Decrypt.match(r)) is not None]
    if not ranges or not rounding.lsbs_to_remove:
        return x
    return _rounded_output(x, rounding.lsbs_to_remove, _exactness(rounding.is_exact), ranges)


def _rounded_output(
    x: Traced, removed: int, exactness: fhe.Exactness, ranges: list[tuple[int, int]]
) -> Traced:
    """Rounded for the client: approximately, it costs nothing, for the low bits are just not decrypted."""
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    bits = bits_of(low, high)
    whole = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if low < 0 else (0, (1 << bits) - 1)
    # A node of its own, for its width decides what rounding leaves.
    x = _copy(x)
    declare(x, *whole)
    x = fhe.round_bit_pattern(x, removed, overflow_protection=False, exactness=exactness)
    declare(x, *whole)
    return x


def _copy(x: Traced) -> Traced:
    """A node of its own with the same values."""
    return x + np.zeros((1,) * x.ndim, np.int64)


def _exactness(is_exact: bool) -> fhe.Exactness:
    return fhe.Exactness.EXACT if is_exact else fhe.Exactness.APPROXIMATE


def _encrypt(scope: Scope, node: ir.Node) -> Traced:
    x = scope.operand(node, 0)
    declare(x, *Encrypt.of(node).range)
    return x


def _decrypt(scope: Scope, node: ir.Node) -> Traced:
    x = scope.operand(node, 0)
    if moves(x):
        x = _copy(x)
    declare(x, *Decrypt.of(node).range)
    return x


EMIT: dict[str, Emission] = {
    "TableLookup": _table_lookup,
    "RoundBits": _round_bits,
    "Encrypt": _encrypt,
    "Decrypt": _decrypt,
}
