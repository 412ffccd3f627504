"""Putting features and their readout in the place of the part of a network that would run encrypted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....ir.editing import GraphEditor
from .search import Chosen, FeatureSearch


def write_readouts(
    editor: GraphEditor, search: FeatureSearch, chosen: Chosen, shapes: Sequence[Sequence[int]]
) -> list[ir.Value]:
    """Write features and what is read out of them at the beginning of a graph.

    Args:
        editor: Of the graph.
        search: It knows the inputs.
        chosen: What it chose.
        shapes: Of one sample of each tensor that is read out, in the order of the readout's outputs.

    Returns:
        These tensors.
    """
    editor.at(editor.graph.node(0))
    features = search.write(editor, search.inputs, chosen.family, chosen.scales)
    features.shape = ir.Shape(["N", chosen.count])
    readout, begin, found = chosen.readout(), 0, []
    for shape in shapes:
        rows = slice(begin, begin + math.prod(shape))
        begin = rows.stop
        weights = editor.constant("readout/weight", readout.weights[rows].astype(np.float32))
        bias = editor.constant("readout/bias", readout.bias[rows].astype(np.float32))
        value = editor.add("Gemm", [features, weights, bias], "readout", {"transB": 1})
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", math.prod(shape)])
        if len(shape) != 1:
            wanted = editor.constant("readout/shape", np.asarray([-1, *shape], np.int64))
            value = editor.add("Reshape", [value, wanted], "readout/Reshape")
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", *shape])
        found.append(value)
    return found


def write_student(
    model: ir.Model, search: FeatureSearch, chosen: Chosen, targets: Sequence[ir.Value]
) -> None:
    """Let features and a readout stand for ``targets`` in ``model``, and drop what only those needed.

    Args:
        model: Edited in place.
        search: It knows the inputs.
        chosen: What it chose.
        targets: Values that are read out, in the order of the readout's outputs.
    """
    editor = GraphEditor(model)
    shapes = [[d for d in (t.shape or [])[1:] if isinstance(d, int)] for t in targets]
    for target, value in zip(targets, write_readouts(editor, search, chosen, shapes), strict=True):
        editor.stand_in(target, value, "of_network")
    RemoveUnusedNodesPass()(model)
