"""Which element is the largest, inside the encrypted part: comparisons of all pairs, by sums and tables.

As for Softmax, one linear layer makes all the differences; that takes a table for each pair, so it is done up
to as many elements as there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import GraphEditor
from ...ir.graph import int_of, is_float
from .reductions import MOST_IN_SOFTMAX, Parts

_EQUAL = 1e-6
"""Elements that are closer than that are taken for equal."""


def hardmax(edit: GraphEditor, node: ir.Node) -> bool:
    """Hardmax is 1 where an element exceeds all before it, and is no less than all behind it."""
    found = _winner(edit, node, False) if node.op_type == "Hardmax" else None
    if found is None:
        return False
    hot, order = found
    edit.substitute(node, "Transpose", [hot], {"perm": [int(i) for i in np.argsort(order)]})
    return True


def place_of_largest(edit: GraphEditor, node: ir.Node) -> bool:
    """ArgMax and ArgMin are Hardmax times the numbers of the places."""
    if node.op_type not in ("ArgMax", "ArgMin"):
        return False
    found = _winner(edit, node, node.op_type == "ArgMin", int_of(node, "select_last_index", 0) == 1)
    if found is None:
        return False
    hot, order = found
    parts = Parts(edit, node, np.dtype(np.float32))
    sample = shapes.static_of_sample(node.inputs[0])
    assert sample is not None
    numbers = parts.array(np.arange(sample[order[-1] - 1])[:, None])
    place = parts.add("MatMul", hot, numbers, part="place")
    value = parts.add("Transpose", place, perm=[int(i) for i in np.argsort(order)], part="in_order")
    if not int_of(node, "keepdims", 1):
        value = parts.add("Squeeze", value, parts.indices([order[-1]]), part="squeezed")
    # What comes behind a Cast to whole numbers must not be cut off.
    edit.substitute(node, "Cast", [parts.add("Round", value, part="rounded")], {"to": int(ir.DataType.INT64)})
    return True


def _winner(
    edit: GraphEditor, node: ir.Node, smallest: bool, last: bool = False
) -> tuple[ir.Value, list[int]] | None:
    """A one where the largest element is, its axis moved to the end, and the order of axes that did so."""
    x, sample = node.inputs[0], shapes.static_of_sample(node.inputs[0])
    if node.domain or sample is None or not is_float(x):
        return None
    rank = len(sample) + 1
    axis = int_of(node, "axis", -1 if node.op_type == "Hardmax" else 0) % rank
    if axis == 0 or not 1 < (size := sample[axis - 1]) <= MOST_IN_SOFTMAX:
        return None
    parts = Parts(edit, node, np.dtype(np.float32))
    order = [i for i in range(rank) if i != axis] + [axis]
    if axis != rank - 1:
        x = edit.at(node).add("Transpose", [x], f"{parts.name}/last", {"perm": order})
    first, second = (i.ravel() for i in np.indices((size, size)))
    keep = first != second
    first, second = first[keep], second[keep]
    pairs = np.zeros((size, len(first)))
    pairs[first, np.arange(len(first))] = -1.0 if smallest else 1.0
    pairs[second, np.arange(len(first))] += 1.0 if smallest else -1.0
    differences = parts.add("MatMul", x, parts.array(pairs), part="differences")
    # Of equal elements one wins: against those that it stands in front of no more than 0 is needed, give or
    # take what a fitted offset may be off.
    strict = (first < second) if last else (first > second)
    needed = parts.array(np.where(strict, _EQUAL, -_EQUAL))
    wins = parts.add(
        "Cast", parts.add("GreaterOrEqual", differences, needed, part="wins"), to=int(ir.DataType.FLOAT)
    )
    moved = [sample[i - 1] for i in order[1:]]
    split = parts.add("Reshape", wins, parts.indices([-1, *moved, size - 1]), part="pairs")
    total = parts.add("ReduceSum", split, parts.indices([-1]), part="sum", keepdims=0)
    all_won = parts.add("GreaterOrEqual", total, parts.number(size - 1.5), part="all_won")
    return parts.add("Cast", all_won, part="one_hot", to=int(ir.DataType.FLOAT)), order
