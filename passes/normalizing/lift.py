"""Samples on axis 0 everywhere, for models that carry them on another axis on the way.

Recurrent cells and attention of many exporters put time in front of the samples, or fold samples and heads
into one axis. Such a model is read as one for a single sample, in which that axis has one element, and gets a
new axis in front of all others (``axes``): what the operators do along the others stays as it was.
"""

from __future__ import annotations

import onnx_ir as ir

from ..analysis.regions import server_nodes
from . import folding, shapes
from .axes import Lifting, NotLiftedError
from .edit import constant


def needed(model: ir.Model) -> bool:
    """Whether a float tensor of the encrypted part has samples elsewhere than on axis 0, or no other axis."""
    for value in model.graph.inputs:
        dims = shapes.dims_of(value)
        if not dims or dims[0] != shapes.BATCH:
            return False
    for node in server_nodes(model):
        for output in node.outputs:
            dims = shapes.dims_of(output)
            if output.dtype is ir.DataType.FLOAT and (not dims or dims[0] != shapes.BATCH or len(dims) < 2):
                return True
    return False


def lift(model: ir.Model) -> bool:
    """Rewrite ``model`` in place; returns False, and leaves it, where an operator is not known.

    Its inputs and outputs stay as they are.
    """
    declared = {v: v.shape for v in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs))}
    old = list(model.graph)
    for value in model.graph.inputs:
        value.shape = ir.Shape([1, *list(value.shape or [])[1:]])
    shapes.infer(model)
    sizes = folding.sizes(model)
    undo = _freeze(model, sizes)
    lifting = Lifting(model)
    outputs = list(model.graph.outputs)
    try:
        for node in old:
            if node not in sizes:
                lifting.visit(node)
        ends = [lifting.end(o, old[-1]) for o in outputs]
    except NotLiftedError:
        there = set(old)
        _remove([n for n in model.graph if n not in there], model)
        for node, index, value in undo:
            node.replace_input_with(index, value)
        for value, shape in declared.items():
            value.shape = shape
        return False
    for index, (given, end) in enumerate(zip(outputs, ends, strict=True)):
        model.graph.outputs[index] = end
        end.type = given.type
        name = given.name
        given.name, end.name = f"{name}_before", name
    for value in model.graph.inputs:
        value.shape = declared[value]
    _remove(old, model)
    shapes.infer(model)
    return True


def _freeze(model: ir.Model, sizes: set[ir.Node]) -> list[tuple[ir.Node, int, ir.Value]]:
    """Give the readers of sizes what these are for one sample; returns what they read before."""
    values = [o for n in sizes for o in n.outputs if any(r not in sizes for r in o.consumers())]
    undo: list[tuple[ir.Node, int, ir.Value]] = []
    for value, array in shapes.same_for_all_batches(model, values).items():
        frozen = constant(model.graph, array, f"{value.name}_single")
        for node, index in list(value.uses()):
            if node not in sizes:
                undo.append((node, index, value))
                node.replace_input_with(index, frozen)
    return undo


def _remove(nodes: list[ir.Node], model: ir.Model) -> None:
    for node in reversed(nodes):
        model.graph.remove(node, safe=True)
