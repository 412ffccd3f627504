"""Samples on axis 0 everywhere, for models that carry them on another axis on the way.

Recurrent cells and attention of many exporters put time in front of the samples, or fold samples and heads
into one axis. Such a model is read as one for a single sample, in which that axis has one element, and gets a
new axis in front of all others (``axes``): what the operators do along the others stays as it was.
"""

from __future__ import annotations

import onnx_ir as ir

from ...ir import folding, shapes
from ...ir.editing import GraphEditor
from ...ir.graph import variable_inputs
from .axes import Lifting, NotLiftedError


def lift(model: ir.Model) -> ir.Node | None:
    """Rewrite ``model`` in place, so that its samples are on axis 0 of every input and output.

    The file may declare one sample, and fold its axis away where it likes.

    Returns:
        None; or the first node of an operator that is not known, and ``model`` is as it was.
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
    fixed = [n for n in old if not variable_inputs(n)]
    try:
        for node in old:
            if node not in sizes and node not in fixed:
                lifting.visit(node)
        ends = [lifting.end(o, old[-1]) for o in outputs]
    except NotLiftedError:
        there = set(old)
        _remove([n for n in model.graph if n not in there], model)
        for node, index, value in undo:
            node.replace_input_with(index, value)
        for value, shape in declared.items():
            value.shape = shape
        return lifting.node
    for index, (given, end) in enumerate(zip(outputs, ends, strict=True)):
        if given is end:
            continue
        model.graph.outputs[index] = end
        end.type = given.type
        name = given.name
        given.name, end.name = f"{name}_before", name
    for value in model.graph.inputs:
        value.shape = ir.Shape([shapes.BATCH, *list(value.shape or [])[1:]])
    names = [str(n.name) for n in old if n not in fixed]
    _remove([n for n in old if n not in fixed], model)
    _name_again(model, names)
    shapes.infer(model)
    return None


def _name_again(model: ir.Model, names: list[str]) -> None:
    """Nodes that do what others did have their names: the user knows layers by them."""
    nodes = {str(n.name): n for n in model.graph}
    for name in names:
        found = nodes.get(f"{name}/product") or nodes.get(f"{name}/lifted")
        if found is not None and name not in nodes:
            found.name = name


def obstacle(model: ir.Model) -> ir.Node | None:
    """The node that keeps ``model`` from being lifted; it stays as it is."""
    return lift(model.clone())


def _freeze(model: ir.Model, sizes: set[ir.Node]) -> list[tuple[ir.Node, int, ir.Value]]:
    """Give the readers of sizes what these are for one sample; returns what they read before."""
    values = [o for n in sizes for o in n.outputs if any(r not in sizes for r in o.consumers())]
    undo: list[tuple[ir.Node, int, ir.Value]] = []
    edit = GraphEditor(model)
    for value, array in shapes.same_for_all_batches(model, values).items():
        frozen = edit.constant(f"{value.name}_single", array)
        for node, index in list(value.uses()):
            if node not in sizes:
                undo.append((node, index, value))
                node.replace_input_with(index, frozen)
    return undo


def _remove(nodes: list[ir.Node], model: ir.Model) -> None:
    for node in reversed(nodes):
        model.graph.remove(node, safe=True)
