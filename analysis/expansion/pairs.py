"""A table of two inputs as a table of one: their combination that tells apart what the table does."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ...ir.bits import bits_of
from ...ir.ops import PairLookup
from .editing import ExpansionEditor


def expand(lookup: PairLookup, edit: ExpansionEditor) -> ir.Value:
    """What stands for a PairLookup, cut to the inputs that can occur."""
    (x, y), table, first = lookup.operands, lookup.entries, lookup.first
    starts = []
    for axis, value in ((1, x), (2, y)):
        low, high = edit.bounds(value)
        start = int(first[axis - 1])
        low, high = max(low, start), min(high, start + table.shape[axis] - 1)
        table = np.take(table, range(low - start, high - start + 1), axis=axis)
        starts.append(low)
    return packed(lookup.node, x, y, table, (starts[0], starts[1]), lookup.axis, edit)


def packed(
    node: ir.Node,
    x: ir.Value,
    y: ir.Value,
    table: np.ndarray,
    first: tuple[int, int],
    axis: int,
    edit: ExpansionEditor,
) -> ir.Value:
    """One lookup on ``a * x + b * y``.

    Args:
        node: What it stands for.
        x, y: The operands; they broadcast.
        table: (channels, values of x, values of y).
        first: Smallest x and y.
        axis: Axis of the channels.
        edit: Inserts nodes.
    """
    a, b = combination(table)
    i, j = np.indices(table.shape[1:])
    numbers = a * (i + first[0]) + b * (j + first[1])
    low, size = int(numbers.min()), int(np.ptp(numbers)) + 1
    flat = np.zeros((len(table), size), np.float64)
    flat[:, (numbers - low).ravel()] = table.reshape(len(table), -1)
    left, right = (
        edit.times(v, factor, f"{node.name}_{s}") for v, factor, s in ((x, a, "left"), (y, b, "right"))
    )
    index = edit.broadcast("Add", [left, right], f"{node.name}_packed")
    return edit.lookup(index, flat, low, f"{node.name}_table", axis)


def combination(table: np.ndarray) -> tuple[int, int]:
    """The factors of x and y whose sum takes the fewest bits and still tells apart what the table does.

    A comparison needs the difference only, an exclusive or the sum; in the worst case every pair counts.

    Args:
        table: (channels, values of x, values of y).
    """
    _, n, m = table.shape
    i, j = np.indices((n, m))
    found, most = (m, 1), bits_of(0, n * m - 1, least=0)
    for a, b in _factors(n, m):
        size = a * (n - 1) + abs(b) * (m - 1) + 1
        bits = bits_of(0, size - 1)
        if bits >= most:
            continue
        numbers = (a * i + b * j).ravel()
        numbers -= numbers.min()
        flat = np.zeros((len(table), size), table.dtype)
        flat[:, numbers] = table.reshape(len(table), -1)
        if np.array_equal(flat[:, numbers], table.reshape(len(table), -1)):
            found, most = (a, b), bits
    return found


def _factors(n: int, m: int) -> Iterator[tuple[int, int]]:
    """Pairs of factors, those of the smallest sums first; only the simplest where there are many values."""
    most = max(2, min(n, m, 1 << 14 // max(1, int(math.log2(n * m)))))
    pairs = [(a, b * s) for a in range(most + 1) for b in range(most + 1) for s in (1, -1) if a or b]
    if n * m > 1 << 12:
        pairs = [(1, 1), (1, -1), (1, 0), (0, 1)]
    yield from sorted(pairs, key=lambda p: p[0] * (n - 1) + abs(p[1]) * (m - 1))
