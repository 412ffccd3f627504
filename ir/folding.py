"""Constant folding: onnxruntime computes what depends on no input, and operators that do nothing go."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from . import runtime, shapes
from .editing import GraphEditor
from .graph import RANDOM, constant_of, variable_inputs

_LEFT = RANDOM | {"Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity"}
_MAX_FOLDED_ELEMENTS = 2**24
"""Elements of the largest constant that is computed while a file is read (64 MB of float32)."""


def fold_shapes(model: ir.Model) -> bool:
    """Compute what depends on shapes alone (Shape-Gather-Concat-Reshape); returns whether there was any."""
    from onnxscript import optimizer

    # Small constants and symbolic shapes are what onnxscript does well; weights are for fold_constants.
    folded = optimizer.fold_constants(model, onnx_shape_inference=False).modified
    lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
    edit = GraphEditor(model)
    for node in list(model.graph):
        value = node.attributes.get_tensor("value") if node.op_type == "Constant" else None
        if value is not None:  # it is returned: an initializer cannot stand for an output
            edit.substitute(node, "Identity", [edit.constant(f"{node.name}.value", value.numpy())])
    unused = RemoveUnusedNodesPass()(model).modified
    return bool(folded or lifted or unused)


_SIZES = ("Shape", "Size")


def sizes(model: ir.Model) -> set[ir.Node]:
    """The nodes that compute with nothing but constants and the sizes of tensors."""
    found: set[ir.Node] = set()
    for node in model.graph:
        read = variable_inputs(node)
        if not node.domain and (
            node.op_type in _SIZES or (read and all(v.producer() in found for v in read))
        ):
            found.add(node)
    return found


def freeze_sizes(model: ir.Model) -> bool:
    """Sizes that do not follow the batch are constants, however they are computed; returns whether any were.

    They are found by running the model on two batch sizes.
    """
    values = [
        o
        for n in sizes(model)
        if n.op_type not in _SIZES
        for o in n.outputs
        if o.name and not o.is_graph_output()
    ]
    modified, edit = False, GraphEditor(model)
    for value, array in shapes.same_for_all_batches(model, values).items():
        value.replace_all_uses_with(edit.constant(f"{value.name}_size", array))
        modified = True
    return modified


def fold_constants(model: ir.Model) -> bool:
    """Run nodes that read only initializers and keep their results as initializers."""
    modified, edit = False, GraphEditor(model)
    for node in list(model.graph):
        if not _foldable(node):
            continue
        wanted = [o for o in node.outputs if o.name]
        arrays = runtime.run_nodes([node], {}, wanted, model.opset_imports.get("", 0))
        for output, array in zip(wanted, arrays, strict=True):
            name = str(output.name)
            edit.rename(output, f"{name}_folded")
            output.replace_all_uses_with(edit.constant(name, array))
        model.graph.remove(node, safe=True)
        modified = True
    return modified


def _foldable(node: ir.Node) -> bool:
    if node.domain or node.op_type in _LEFT or not node.inputs:
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    constants = [constant_of(v) for v in node.inputs if v is not None]
    if not constants or any(c is None or c.dtype.kind not in "fiub" for c in constants):
        return False
    for output in node.outputs:
        static = shapes.static_of(output)
        if output.is_graph_output() or (
            output.name and (static is None or math.prod(static) > _MAX_FOLDED_ELEMENTS)
        ):
            return False
    return True
