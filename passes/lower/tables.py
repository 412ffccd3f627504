"""Computing a table: the fusion group is run in onnxruntime on every integer of its range."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.ranges import over_axes
from ...analysis.regions.fusion_groups import FusionGroup
from ...ir import runtime
from ...ir.errors import LimitError, UnsupportedError
from ...ir.graph import constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.interval_arithmetic import Interval
from ...ir.ops import DequantizeLinear, QuantizeLinear, TableLookup
from .views import rank_of

MAX_ENTRIES = 2**20
"""Entries of one table that are computed one by one."""
MAX_TENSOR_ENTRIES = 2**27
"""Entries of all tables of one tensor that are computed one by one."""
MAX_COARSE_ENTRIES = 2**16
"""Entries of one coarse table. Where a table would have more than ``MAX_ENTRIES``, no backend takes it before
``insert-rounding`` has cut it to 8 bits and fewer. For that it need not know every entry: in a coarse table
one entry holds for 2^k accumulators."""
MAX_TENSOR_COARSE_ENTRIES = 2**24
"""Entries of all coarse tables of one tensor."""
MIN_ENTRIES = 2**10
"""A coarse table of fewer entries is refused. A table of no more entries whose size is free gets a power of
two."""


def varying_axes(group: FusionGroup) -> list[int]:
    """Axes of the source along which a constant of the fusion group is not the same everywhere."""
    rank = rank_of(group.source)
    axes: set[int] = set()
    for node in group.nodes:
        for value in node.inputs:
            constant = constant_of(value)
            if constant is None or constant.size == 1:
                continue
            # The scales of a quantizer lie along its axis, wherever they would broadcast to.
            if (quantizer := QuantizeLinear.match(node) or DequantizeLinear.match(node)) is not None:
                constant = quantizer.per_channel(constant, rank)
            if constant.ndim > rank:
                raise UnsupportedError(
                    "a constant has more axes than the encrypted tensor",
                    node=node.name or "",
                    op=node.op_type,
                    found=f"rank {constant.ndim}",
                    allowed=f"at most rank {rank}",
                    do="reshape the constant",
                )
            for axis in range(constant.ndim):
                if not np.all(constant == np.take(constant, [0], axis=axis)):
                    axes.add(axis + rank - constant.ndim)
    return sorted(axes)


def build_table(
    model: ir.Model, group: FusionGroup, bounds: Interval, edit: IntegerEditor, free: bool = False
) -> ir.Value:
    """Insert the TableLookup of a fusion group; returns its output.

    Where the group's constants vary along several axes, those are merged into one by a Reshape (free) around
    the lookup, since a table is chosen by one axis. A table too large to compute becomes a coarse one: its
    entries are those of every ``step``-th accumulator, and hold for all that are nearest to it.

    Args:
        model: The model.
        group: What becomes a table.
        bounds: Declared bounds of the source, for each element or channel.
        edit: Inserts nodes.
        free: Let a table have as many entries as its bits can tell apart: they cost nothing, and what comes
            beyond the bounds still fits.
    """
    axes = varying_axes(group)
    low, high = over_axes(bounds, axes)
    low, high = np.floor(low).reshape(-1), np.ceil(high).reshape(-1)
    size = int((high - low).max()) + 1
    step = _step(size, len(low))
    if step > 1:
        low, high = np.floor(low / step) * step, np.ceil(high / step) * step
        size = int((high - low).max()) // step + 1
    if size < MIN_ENTRIES < MIN_ENTRIES * step:
        node = group.source.producer()
        raise LimitError(
            "the accumulators in front of these tables are too wide",
            node=str(node.name) if node else "",
            op=node.op_type if node else "",
            found=f"{len(low)} different tables of {size * step} values and more",
            allowed=f"{MAX_TENSOR_COARSE_ENTRIES} values in all",
            do="use fewer bits for weights and activations, or prune",
        )
    if free and 1 < size <= MIN_ENTRIES:
        size = 1 << (size - 1).bit_length()
    # Tables of one tensor have one size: narrower channels get their surplus on both sides.
    first = low - np.floor((size - 1 - (high - low) / step) / 2) * step
    if len(axes) > 1:  # merged channels run over all elements
        shape = [int(d) for d in list(group.source.shape or [])[1:]]  # type: ignore[arg-type]
        kept = [n if i in axes else 1 for i, n in enumerate(shape, start=1)]
        first = np.broadcast_to(first.reshape(kept), shape).reshape(-1)
    table = _evaluate(model, group, first, size, axes, step)
    layer = group.source.producer()
    name = f"{layer.name if layer is not None else group.source.name}_table"
    source, axis = group.source, axes[0] if axes else 1
    if len(axes) > 1:
        source, axis = _merge(group.source, edit, name), 1
    # What an entry of a coarse table is computed for stands in the middle of what it holds for.
    constants = edit.constant(f"{name}_values", table), edit.constant(f"{name}_first", first - step // 2)
    lookup = TableLookup.make(source, *constants, step=step, axis=axis)
    output = edit.insert(lookup, name, source)
    return _split(output, group.source, edit, name) if len(axes) > 1 else output


def _step(size: int, channels: int) -> int:
    """Distance of the entries of ``channels`` tables over ranges of ``size`` integers, a power of two."""
    if size <= MAX_ENTRIES and size * channels <= MAX_TENSOR_ENTRIES:
        return 1
    return int(
        2 ** math.ceil(math.log2(size / min(MAX_COARSE_ENTRIES, MAX_TENSOR_COARSE_ENTRIES / channels)))
    )


def _evaluate(
    model: ir.Model, group: FusionGroup, first: np.ndarray, size: int, axes: list[int], step: int
) -> np.ndarray:
    """(channels, size): batch entry i holds every ``step``-th integer of every channel's range."""
    source = group.source
    shape = [int(d) if i in axes else 1 for i, d in enumerate(source.shape or [])]  # type: ignore[arg-type]
    if len(axes) > 1:
        shape = [1, *(int(d) for d in list(source.shape or [])[1:])]  # type: ignore[arg-type]
    grid = step * np.arange(size).reshape([-1] + [1] * (len(shape) - 1)) + first.reshape([1, *shape[1:]])
    inputs = grid.astype(np.float32)
    opset = model.graph.opset_imports.get("", 21)
    quantizer = next(n for n in group.nodes if n.op_type == "QuantizeLinear")
    wanted = quantizer.inputs[0]
    assert wanted is not None
    if wanted is source:
        (codes,) = runtime.run_nodes(group.nodes, {source: inputs}, [group.output], opset)
        reals = inputs
    else:
        codes, reals = runtime.run_nodes(group.nodes, {source: inputs}, [group.output, wanted], opset)
    codes, reals = (np.broadcast_to(without_spread(a, inputs.shape), inputs.shape) for a in (codes, reals))
    undefined = np.isnan(reals.reshape(size, -1).T)
    return _without_gaps(codes.reshape(size, -1).T.astype(np.float32), undefined, group)


def without_spread(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Drop the axes over which constants that are the same everywhere have repeated a result."""
    return array[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape[-array.ndim :])]


def _without_gaps(codes: np.ndarray, undefined: np.ndarray, group: FusionGroup) -> np.ndarray:
    """Entries where the function is not a number (log of a negative) take the nearest defined one's."""
    codes = codes.copy()
    for row, gaps in zip(codes, undefined, strict=True):
        if not gaps.any():
            continue
        if gaps.all():
            node = group.nodes[0]
            raise UnsupportedError(
                "this function is not a number anywhere in its range",
                node=node.name or "",
                op=node.op_type,
                do="check the calibration data and the network",
            )
        known, places = np.flatnonzero(~gaps), np.flatnonzero(gaps)
        after = np.searchsorted(known, places)
        left, right = known[np.maximum(after - 1, 0)], known[np.minimum(after, len(known) - 1)]
        # Of two that are equally near, the lower one.
        row[places] = row[np.where(np.abs(places - left) <= np.abs(right - places), left, right)]
    return codes


def _merge(value: ir.Value, edit: IntegerEditor, name: str) -> ir.Value:
    size = int(np.prod([int(d) for d in list(value.shape or [])[1:]]))  # type: ignore[arg-type]
    flat = edit.add("Flatten", [value], f"{name}_merge", {"axis": 1}, like=value)
    flat.shape = ir.Shape([(value.shape or [None])[0], size])
    return flat


def _split(value: ir.Value, like: ir.Value, edit: IntegerEditor, name: str) -> ir.Value:
    shape = [0, *(int(d) for d in list(like.shape or [])[1:])]  # type: ignore[arg-type]
    return edit.add(
        "Reshape",
        [value, edit.constant(f"{name}_shape", np.array(shape), np.int64)],
        f"{name}_split",
        like=like,
    )
