"""Which entries of a table can be reached at all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....analysis.ranges.ranges import SoundRanges
from ....analysis.regions.linear import linear_of
from ....ir.graph import constant_of, is_dialect, variable_inputs
from ....ir.ops import TableLookup
from .shaped_lookup import ShapedLookup


def output_bounds(lookup: ShapedLookup, sound: SoundRanges) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value that the table can return for each element of a sample.

    Where no range is known (an operator without a rule) every entry counts.
    """
    try:
        low, high = sound.of(lookup.output)
        return np.broadcast_to(low, (1, *lookup.rows.shape))[0], np.broadcast_to(
            high, (1, *lookup.rows.shape)
        )[0]
    except KeyError:
        return lookup.entries.min(axis=1)[lookup.rows], lookup.entries.max(axis=1)[lookup.rows]


def entries(lookup: ShapedLookup, sound: SoundRanges) -> tuple[np.ndarray, np.ndarray]:
    """(channels): first and last entry that any element can select; 0 and -1 for a table that nobody uses."""
    top = lookup.size - 1
    try:
        low, high = (np.broadcast_to(b, (1, *lookup.rows.shape))[0] for b in sound.of(lookup.source))
    except KeyError:
        return np.zeros(lookup.channels, int), np.full(lookup.channels, top)
    # Rounding goes to the nearest entry; one more on each side is what approximate rounding may reach.
    reach = lookup.step if lookup.rounding is not None else 0
    start = lookup.first[lookup.rows]
    lowest = np.clip(np.floor((low - reach - start) / lookup.step), 0, top)
    highest = np.clip(np.ceil((high + reach - start) / lookup.step), 0, top)
    first, last = np.full(lookup.channels, top + 1), np.full(lookup.channels, -1)
    np.minimum.at(first, lookup.rows, lowest.astype(int))
    np.maximum.at(last, lookup.rows, highest.astype(int))
    return np.where(last < 0, 0, first), last


def residue(value: ir.Value, step: int) -> int | None:
    """What every element of ``value`` leaves when divided by ``step``, where that is provably one number."""
    node = value.producer()
    if step == 1:
        return 0
    if node is None:
        return None
    constants = [c for v in node.inputs if (c := constant_of(v)) is not None]
    if (lookup := TableLookup.match(node)) is not None:
        return _single(lookup.entries % step)
    if is_dialect(node):
        return None
    if linear_of(node) is not None or node.op_type == "Mul":
        multiple = constants and all((c % step == 0).all() for c in constants)
        return 0 if multiple else None
    read = [residue(v, step) for v in variable_inputs(node)]
    if node.op_type == "Add" and len(constants) == 1 and len(read) == 1 and read[0] is not None:
        added = _single(constants[0] % step)
        return None if added is None else (read[0] + added) % step
    if node.op_type in {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}:
        return read[0]
    return None


def _single(array: np.ndarray) -> int | None:
    return int(array.flat[0]) if array.size and (array == array.flat[0]).all() else None
