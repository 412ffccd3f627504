"""Computing the table of a function of two encrypted tensors: the fusion group is run on every pair."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.fusion_groups import FusionGroup
from ...ir import runtime
from ...ir.errors import UnsupportedError
from ...ir.graph import variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.interval_arithmetic import Interval
from ...ir.ops import PairLookup
from .tables import varying_axes, without_spread
from .views import rank_of

MAX_PAIRS = 2**16
"""Pairs of values of two tensors that a table holds: 8 bits of each, 16 together."""


def build_pairs(
    model: ir.Model, group: FusionGroup, x: Interval, y: Interval, edit: IntegerEditor
) -> ir.Value:
    """Insert the PairLookup of a fusion group with two sources; returns its output.

    Args:
        model: The model.
        group: What becomes a table.
        x, y: Bounds of the sources.
        edit: Inserts nodes.

    Raises:
        UnsupportedError: There are too many pairs for one table, or it differs along several axes.
    """
    second = group.second
    assert second is not None
    node = next((n for n in group.nodes if len(variable_inputs(n)) > 1), group.nodes[0])
    lows = [int(np.floor(b[0].min())) for b in (x, y)]
    sizes = [int(np.ceil(b[1].max())) - low + 1 for b, low in zip((x, y), lows, strict=True)]
    if sizes[0] * sizes[1] > MAX_PAIRS:
        quantizer = next(n for n in group.nodes if n.op_type == "QuantizeLinear")
        raise UnsupportedError(
            "this part of the network cannot become a table",
            node=quantizer.name or "",
            op=quantizer.op_type,
            found=f"it depends on 2 encrypted tensors, of {sizes[0]} and {sizes[1]} values",
            allowed="operators that work element by element on one encrypted tensor, or on two of at most"
            f" {MAX_PAIRS} pairs of values",
            do="put quantizers of few bits on both tensors (the option operands of quantize)",
        )
    axes = varying_axes(group)
    rank = rank_of(group.output)
    if len(axes) > 1 or rank_of(group.source) != rank_of(second):
        raise UnsupportedError(
            "a function of two encrypted tensors differs along several axes",
            node=node.name or "",
            op=node.op_type,
            found=f"axes {axes}",
            allowed="one table, or one for each entry of one axis",
            do="use constants that are the same everywhere, or differ along one axis",
        )
    shape = [1] * rank
    if axes:
        shape[axes[0]] = int(group.output.shape[axes[0]])  # type: ignore[index, arg-type]
    rows, columns = np.indices(sizes)
    grids = [
        np.broadcast_to((g.ravel() + low).reshape(-1, *[1] * (rank - 1)), (g.size, *shape[1:]))
        for g, low in zip((rows, columns), lows, strict=True)
    ]
    given = {v: g.astype(np.float32) for v, g in zip((group.source, second), grids, strict=True)}
    opset = model.graph.opset_imports.get("", 21)
    (codes,) = runtime.run_nodes(group.nodes, given, [group.output], opset)
    codes = np.broadcast_to(without_spread(codes, grids[0].shape), grids[0].shape).reshape(
        sizes[0] * sizes[1], -1
    )
    table = codes.T.reshape(-1, *sizes)
    name = edit.take_name(node)
    constants = edit.constant(f"{name}_values", table), edit.constant(f"{name}_first", np.asarray(lows))
    lookup = PairLookup.make(group.source, second, *constants, axis=axes[0] if axes else 1)
    return edit.insert(lookup, name, group.output)
